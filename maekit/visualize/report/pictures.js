// One slider over the steps at which pictures were drawn; each run shows its newest until there.
(() => {
  const slider = document.getElementById("slider");
  if (slider === null) return;
  const MILLISECONDS = 250; // a step of the film
  const REST = 6; // times as long on the last one
  const steps = JSON.parse(slider.dataset.steps);
  const output = document.getElementById("picture-step");
  const play = document.getElementById("play");
  const figures = [...document.querySelectorAll(".reconstruction")].map((figure) => ({
    images: [...figure.querySelectorAll("img")],
    caption: figure.querySelector(".step"),
  }));
  let timer = null;

  function show() {
    const step = steps[Number(slider.value)];
    output.textContent = grouped(step);
    slider.setAttribute("aria-valuetext", `step ${step}`);
    for (const { images, caption } of figures) {
      const drawn = images.filter((image) => Number(image.dataset.step) <= step);
      const shown = drawn.at(-1) ?? images[0];
      for (const image of images) image.hidden = image !== shown;
      if (caption) caption.textContent = grouped(shown.dataset.step);
    }
  }

  function stop() {
    clearTimeout(timer);
    timer = null;
    play.textContent = "Play";
  }

  function advance() {
    slider.value = (Number(slider.value) + 1) % steps.length;
    show();
    const last = Number(slider.value) === steps.length - 1;
    timer = setTimeout(advance, last ? REST * MILLISECONDS : MILLISECONDS);
  }

  slider.addEventListener("input", () => {
    stop();
    show();
  });
  play.addEventListener("click", () => {
    if (timer !== null) {
      stop();
      return;
    }
    play.textContent = "Stop";
    advance();
  });
})();
