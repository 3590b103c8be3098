"""Web pages in a real browser: what a page looks like as text, what can be done on it, and collecting rows."""

from rlvr_world.domains.web_page.browser.collect import WebSpec, collect_rows

__all__ = ["WebSpec", "collect_rows"]
