"""Galleries in Milvus, for more items or more searching processes than one machine serves."""
