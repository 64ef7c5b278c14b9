// The keys of a page. They are left to fields, and on a button or a link Enter, Space and Tab to that.

// `find` returns what an event's key does, if anything; `keys` are what buttons with `data-key` do; then `onButton` is called.
export function listenForKeys({ find, keys, isOff, onButton }) {
  document.addEventListener("keydown", (event) => {
    if (isOff() || event.altKey || event.target.matches("select, input")) return;
    if (event.target.matches("button, a") && ["Enter", " ", "Tab"].includes(event.key)) return;
    const handle = find(event);
    if (!handle) return;
    event.preventDefault();
    handle(event);
  });
  for (const button of document.querySelectorAll("[data-key]")) {
    button.addEventListener("click", (event) => {
      keys[button.dataset.key](event);
      onButton();
    });
  }
}
