"""The part of an explorer that lives in the page: it draws a figure anew where it stands."""

from __future__ import annotations

import anywidget
import traitlets


class ExplorerView(anywidget.AnyWidget):
    """Hands a new figure to the Plotly that drew the output after this widget's own.

    An update of that output would not do in JupyterLab: its renderer draws once and passes over
    updates, and a new one draws three times, one of them for a PNG of its own. When a page with a
    living kernel is loaded anew, JupyterLab shows that PNG, and draws when the mouse enters it: so
    it is told that it did. Where the page has no such Plotly (VS Code, Colab) a message comes back,
    to be answered by an update of the output.

    figure: data and layout, as `paperlab.plots.bundle` has them; empty until a slider moves.
    seen: whether a page has loaded this; not where its server has no anywidget.
    """

    figure = traitlets.Dict().tag(sync=True)
    seen = traitlets.Bool(False).tag(sync=True)
    _esm = """
    function render({ model, el }) {
      const draw = (tries) => {
        const { data, layout } = model.get("figure");
        const here = el.closest(".jp-OutputArea-child");
        const output = here?.nextElementSibling;
        const place = output?.querySelector(".js-plotly-plot");
        if (place && window.Plotly) window.Plotly.react(place, data, layout);
        else if (tries && (here || !el.isConnected)) {
          output?.querySelector(".jp-RenderedPlotly img")?.dispatchEvent(new Event("mouseenter"));
          setTimeout(draw, 100, tries - 1);
        } else model.send("no Plotly to draw with");
      };
      const changed = () => draw(20);
      model.on("change:figure", changed);
      if (model.get("figure").data) changed(); // a page loaded anew: the sliders have moved
      model.set("seen", true);
      model.save_changes();
      return () => model.off("change:figure", changed);
    }
    export default { render };
    """
