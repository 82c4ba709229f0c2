// The bell: how many are unread, and the way to the newest of them.

import { ChangeDetectionStrategy, Component, computed, input, output } from "@angular/core";

const MOST = 99; // that a badge has room for

/** A button with a badge. */
@Component({
  selector: "app-bell",
  changeDetection: ChangeDetectionStrategy.OnPush,
  template: `
    <button type="button" class="quiet" [attr.aria-label]="label()" (click)="pressed.emit()">
      <svg viewBox="0 0 24 24" width="24" height="24" fill="none" stroke="currentColor" stroke-width="1.75" stroke-linejoin="round" aria-hidden="true">
        <path d="M6 10a6 6 0 0 1 12 0c0 5 2 6.5 2 6.5H4S6 15 6 10Z" />
        <path d="M10 20a2.2 2.2 0 0 0 4 0" stroke-linecap="round" />
      </svg>
      @if (unread()) {
        <span class="badge" aria-hidden="true">{{ shown() }}</span>
      }
    </button>
  `,
  styles: `
    button {
      position: relative;
      display: grid;
      padding: 0.5rem;
      color: inherit;
    }
    .badge {
      position: absolute;
      inset-block-start: 0;
      inset-inline-end: 0;
      min-inline-size: 1.25rem;
      padding-inline: 0.25rem;
      background: var(--accent);
      color: var(--on-accent);
      border: 2px solid var(--page);
      border-radius: 1rem;
      font-size: 0.75rem;
      font-weight: 600;
      line-height: 1rem;
      text-align: center;
    }
  `,
})
export class Bell {
  /** How many are unread, once that is known. */
  readonly unread = input.required<number | undefined>();
  /** Somebody wants to see them. */
  readonly pressed = output<void>();

  protected readonly shown = computed(() => ((this.unread() ?? 0) > MOST ? `${MOST}+` : this.unread()));
  protected readonly label = computed(() => {
    const unread = this.unread();
    if (unread === undefined) return "Go to the notifications";
    return unread ? `${unread} unread: go to the newest` : "No unread notifications";
  });
}
