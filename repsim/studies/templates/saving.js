"use strict";
// A vector picture is in the page already: saving it needs no folder beside it.
document.querySelectorAll("a.save").forEach((link) => {
  const image = document.querySelector(`img[data-stem="${link.dataset.stem}"]`);
  if (image && image.src.startsWith("data:image/svg")) {
    link.href = image.src;
    link.download = `${link.dataset.stem}.svg`;
  }
});
