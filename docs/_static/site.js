// On a phone a picture of several panels keeps letters that can be read, and is swiped.
document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll("article img")) {
    if (image.closest(".sphx-glr-thumbcontainer, .animation, table, a.reference.internal")) continue;
    const wrap = () => {
      if (image.naturalWidth < 700) return;
      const box = document.createElement("div");
      box.className = "swiped";
      box.tabIndex = 0;
      image.replaceWith(box);
      box.append(image);
    };
    if (image.complete) wrap();
    else image.addEventListener("load", wrap, { once: true });
  }
});
