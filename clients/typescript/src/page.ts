// What a browser tells a page about its life. In Node nothing is ever told.

/** Whom to tell. */
export interface PageEvents {
  /** The network came back. */
  online(): void;
  /** The browser says that there is no network, which is not always true. */
  offline(): void;
  /** Somebody looks at the page again. */
  visible(): void;
  /** The page is about to be frozen or left. */
  suspend(): void;
  /** The page lives again. */
  resume(): void;
}

/** Starts telling; the answer stops it. */
export function watchPage(events: PageEvents): () => void {
  const { document } = globalThis;
  const visible = () => document.visibilityState === "visible" && events.visible();
  const told: [EventTarget | undefined, string, () => void][] = [
    [globalThis.window, "online", () => events.online()],
    [globalThis.window, "offline", () => events.offline()],
    [globalThis.window, "pagehide", () => events.suspend()],
    [globalThis.window, "pageshow", () => events.resume()],
    [document, "freeze", () => events.suspend()],
    [document, "resume", () => events.resume()],
    [document, "visibilitychange", visible],
  ];
  for (const [target, name, listener] of told) target?.addEventListener(name, listener);
  return () => {
    for (const [target, name, listener] of told) target?.removeEventListener(name, listener);
  };
}

/**
 * For a timer to ask each time: was the machine asleep? Often nothing tells but a timer that is far
 * too late. Those of a page that nobody looks at are late anyway, and such a page may wait.
 */
export function wakes(): (longest: number) => boolean {
  let asked = Date.now();
  return (longest) => {
    const late = Math.abs(Date.now() - asked) > longest;
    asked = Date.now();
    return late && !globalThis.document?.hidden;
  };
}
