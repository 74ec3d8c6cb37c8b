"""Galleries in this process: a folder of files on disk, exact search by the compiled operators, indexes by faiss."""
