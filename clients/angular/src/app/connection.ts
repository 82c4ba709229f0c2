// How the connection stands, in a few words, and a dot for those who only glance.

import { ChangeDetectionStrategy, Component, computed, input, output } from "@angular/core";
import type { ConnectionState } from "@tidings/client";
import { CONNECTION_WORDS } from "../tidings";

/** A line that screen readers are told of when it changes. */
@Component({
  selector: "app-connection",
  changeDetection: ChangeDetectionStrategy.OnPush,
  template: `
    <p role="status" [class]="state()">{{ words() }}</p>
    @if (state() === "reconnecting" && before()) {
      <button type="button" class="quiet" (click)="retried.emit()">Try now</button>
    }
  `,
  styles: `
    :host {
      display: flex;
      flex-wrap: wrap;
      align-items: center;
      gap: 0 0.5rem;
    }
    p {
      display: flex;
      align-items: baseline;
      gap: 0.5rem;
      margin: 0;
      color: var(--muted);
      font-size: 0.9375rem;
    }
    p::before {
      flex: none;
      inline-size: 0.5rem;
      block-size: 0.5rem;
      background: var(--muted);
      border-radius: 50%;
      content: "";
    }
    .live::before {
      background: var(--accent);
    }
    .reconnecting,
    .offline {
      color: var(--warning);
    }
    .reconnecting::before,
    .offline::before {
      background: none;
      box-shadow: inset 0 0 0 2px currentColor;
    }
    .failed {
      color: var(--danger);
    }
    .failed::before {
      background: currentColor;
      border-radius: 0;
    }
    @media (forced-colors: active) {
      .live::before,
      .failed::before {
        background: CanvasText;
      }
      .reconnecting::before,
      .offline::before {
        border: 2px solid CanvasText; /* shadows are not drawn */
      }
    }
  `,
})
export class Connection {
  /** How it stands. */
  readonly state = input.required<ConnectionState>();
  /** Whether it was there before; if not, nothing comes back, and a notice says more. */
  readonly before = input.required<boolean>();
  /** Somebody does not want to wait. */
  readonly retried = output<void>();

  protected readonly words = computed(() =>
    this.state() === "reconnecting" && !this.before() ? "Waiting for the server…" : CONNECTION_WORDS[this.state()],
  );
}
