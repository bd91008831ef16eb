"""The part of an explorer that lives in the page: it draws a figure anew where it stands."""

from __future__ import annotations

import anywidget
import traitlets


class ExplorerView(anywidget.AnyWidget):
    """Passes a new figure to the Plotly instance that drew the output after this widget's own.

    Updating that output does not work in JupyterLab: its renderer ignores updates, and a new renderer
    draws three times, once for a PNG. After a reload of a page with a running kernel, JupyterLab shows
    that PNG until the mouse enters it: so this sends the event. Where the page has no such Plotly
    (VS Code, Colab), it sends a message back, and the output is updated instead.

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
