// Sends a test notification. Trying again after an unknown outcome sends it once: the key stays the
// same until what was written is stored, or is changed.

import { ChangeDetectionStrategy, Component, inject, input, signal } from "@angular/core";
import { TidingsError, type Audience, type NewNotification } from "@tidings/client";
import { Notifications } from "../tidings";
import { Announcer } from "./announcer";
import { Toasts } from "./toasts";

/** A form of three fields. */
@Component({
  selector: "app-send",
  changeDetection: ChangeDetectionStrategy.OnPush,
  template: `
    <details class="card" [open]="wide">
      <summary><h2>Send a test notification</h2></summary>
      <form (submit)="submit($event)">
        <label>
          Message
          <textarea name="data" dir="auto" rows="3" required aria-describedby="send-hint" (keydown.control.enter)="form($event)?.requestSubmit()"></textarea>
        </label>
        <p class="hint" id="send-hint">Text, or JSON such as <code>{{ example }}</code></p>
        <label>
          Event <span class="muted">(optional)</span>
          <input name="event" maxlength="64" pattern="[A-Za-z0-9_.:\\-]+" title="Letters, digits and _ . : -" autocomplete="off" />
        </label>
        <label>
          To
          <select name="to">
            <option value="user" dir="auto">{{ user() }}</option>
            <option value="everyone">everyone in this app</option>
          </select>
        </label>
        <button class="primary" [attr.aria-disabled]="sending()">{{ sending() ? "Sending…" : "Send" }}</button>
      </form>
    </details>
  `,
  styles: `
    .hint {
      margin: -0.5rem 0 0.75rem;
      color: var(--muted);
      font-size: 0.875rem;
    }
  `,
})
export class Send {
  readonly #notifications = inject(Notifications);
  readonly #announcer = inject(Announcer);
  readonly #toasts = inject(Toasts);
  /** To whom by default. */
  readonly user = input.required<string>();

  protected readonly example = `{"title": "Hello"}`;
  protected readonly wide = matchMedia("(min-width: 56rem)").matches;
  protected readonly sending = signal(false);
  #tried = "";
  #key = "";

  protected form({ target }: Event): HTMLFormElement | null {
    return (target as HTMLTextAreaElement).form;
  }

  protected async submit(event: Event): Promise<void> {
    event.preventDefault();
    if (this.sending()) return;
    const form = event.target as HTMLFormElement;
    const fields = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, String(value)]));
    const to: Audience = fields["to"] === "everyone" ? "everyone" : { user: this.user() };
    this.sending.set(true);
    try {
      await this.#notifications.send(notificationOf(fields), to, { idempotencyKey: this.#keyFor(JSON.stringify(fields)) });
      this.#tried = "";
      form.reset();
      this.#announcer.say("Sent");
    } catch (error) {
      this.#failed(error);
    } finally {
      this.sending.set(false);
    }
  }

  #failed(error: unknown): void {
    const unknown = error instanceof TidingsError && ["outcome-unknown", "unreachable"].includes(error.slug);
    if (unknown) this.#toasts.wrong("The server did not confirm this", "Send it again when the connection is back: it is not sent twice.");
    else this.#toasts.failed("This was not sent", error);
  }

  #keyFor(fields: string): string {
    if (fields !== this.#tried) this.#key = `${Date.now()}-${Math.random()}`; // crypto.randomUUID needs https
    this.#tried = fields;
    return this.#key;
  }
}

/** JSON is sent as such, and whatever is none as text. */
function notificationOf({ data = "", event }: Record<string, string>): NewNotification {
  const sent: NewNotification = { data: parsed(data) };
  return event ? { ...sent, event } : sent;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
