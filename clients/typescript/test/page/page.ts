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

window.start = async ({ url, user, history, topics = [] }) => {
  window.client = new TidingsClient({ url, app: "shop", user, info: (message) => void window.report("info", message) });
  const from = history ? (await window.client.history()).cursor : null;
  subscription = window.client.subscribe(
    {
      notification: ({ id }) => window.report("id", id),
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
