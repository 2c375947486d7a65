// On a phone a picture of several panels keeps letters that can be read, and is swiped.
document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll("article img")) {
    if (image.closest(".sphx-glr-thumbcontainer, .animation, table")) continue;
    const wrap = () => {
      if (image.naturalWidth < 700) return;
      const box = document.createElement("div");
      box.className = "swiped";
      box.tabIndex = 0;
      const whole = image.closest("a") ?? image;
      whole.replaceWith(box);
      box.append(whole);
    };
    if (image.complete) wrap();
    else image.addEventListener("load", wrap, { once: true });
  }
});
