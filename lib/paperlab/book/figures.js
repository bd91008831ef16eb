// Draws a plotly figure in the place of its picture, once it comes near the window. Figures are made
// for a width of 700 pixels: on a phone the picture, which can be zoomed, reads better.
const drawn = document.querySelectorAll(".drawn");

function draw(entries, observer) {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    const { data, layout } = JSON.parse(target.querySelector("script").textContent);
    const place = document.createElement("div");
    target.append(place);
    Plotly.newPlot(place, data, layout, { responsive: true, displaylogo: false }).then(() =>
      target.querySelector("a").remove()
    );
  }
}

if (drawn.length && window.innerWidth >= 600) {
  const plotly = document.createElement("script");
  plotly.src = "_static/plotly.min.js";
  plotly.onload = () => {
    const observer = new IntersectionObserver(draw, { rootMargin: "400px" });
    drawn.forEach((figure) => observer.observe(figure));
  };
  document.head.append(plotly);
}
