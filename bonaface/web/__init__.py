"""The web app's parts; ``app.py`` puts them together. Nothing here imports torch before the page is up.

``service`` loads the models in the background and hands out a ``judge``; the tabs ask it. ``guards`` is what stands
between the network and Gradio, ``uploads`` between Gradio and us.
"""
