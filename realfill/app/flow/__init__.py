"""The steps from photos to pictures, as state and jobs that a user interface shows.

The web page and the notebook panel stand on it. Nothing here imports gradio or ipywidgets, and nothing here works on
pixels by itself: it calls the library.
"""
