"""The web app's parts; ``app.py`` puts them together. Nothing here imports torch before the page is up.

``service`` loads the models in the background and returns a ``judge``, which the tabs use. ``guards`` is
between the network and Gradio, ``uploads`` between Gradio and us.
"""
