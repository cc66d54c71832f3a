// Follows a run: the server sends the part of the page that changed. Without scripts the page is as true as when it was loaded.
const live = document.querySelector("[data-live]");
if (live) {
  const source = new EventSource(live.dataset.live);
  source.addEventListener("state", (event) => { live.innerHTML = event.data; });
  // Reports and files are elsewhere on the page: it is loaded afresh.
  source.addEventListener("over", () => { source.close(); location.reload(); });
}
