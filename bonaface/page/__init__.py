"""A model as a page: a static folder that judges images in the visitor's own browser, and sends none of them."""
