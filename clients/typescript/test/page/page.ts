// What runs in the browser's tabs: a client whose strings the test pulls. It reports to the test, so
// that what a tab got is known even after it was reloaded.

import { TidingsClient, type Subscription } from "@tidings/client";

declare global {
  interface Window {
    /** From the test: keeps what a tab tells. */
    report(kind: string, value: unknown): Promise<void>;
    start(options: Start): Promise<void>;
    stop(): Promise<void>;
    client: TidingsClient;
  }
}

export interface Start {
  url: string;
  user: string;
  /** Loads the history first, and subscribes from its cursor. */
  history?: boolean;
  topics?: string[];
}

let subscription: Subscription | undefined;

// What this tab got, over its reloads. Written within the handler and not only told to the test: a
// reload between telling and having told would make the event come again, as it should.
const got: string[] = JSON.parse(sessionStorage.getItem("got") ?? "[]");
const get = (id: string) => {
  got.push(id);
  sessionStorage.setItem("got", JSON.stringify(got));
  void window.report("got", got);
};

window.start = async ({ url, user, history, topics = [] }) => {
  window.client = new TidingsClient({ url, app: "shop", user, info: (message) => void window.report("info", message) });
  const from = history ? (await window.client.history()).cursor : null;
  subscription = window.client.subscribe(
    {
      notification: ({ id }) => get(id),
      state: (change) => window.report("change", change),
      gap: (gap) => window.report("gap", gap),
      error: (error) => void window.report("error", String(error)),
    },
    {
      topics,
      from,
      onConnection(state, problem) {
        void window.report("state", state);
        if (problem) void window.report("problem", problem);
      },
    },
  );
};

window.stop = async () => subscription?.close();
