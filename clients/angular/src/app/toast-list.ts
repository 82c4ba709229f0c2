// The corner in which toasts appear. It says nothing to screen readers by itself: the announcer does.

import { ChangeDetectionStrategy, Component, ElementRef, inject, output } from "@angular/core";
import { Toasts, type Toast } from "./toasts";

/** Shows them; `show` asks to go to the notification. */
@Component({
  selector: "app-toasts",
  changeDetection: ChangeDetectionStrategy.OnPush,
  styleUrl: "./toast-list.css",
  host: { "(document:keydown.escape)": "toasts.clear()" },
  template: `
    <section
      aria-label="Just arrived"
      (mouseenter)="toasts.hold(true)"
      (mouseleave)="toasts.hold(false)"
      (focusin)="toasts.hold(true)"
      (focusout)="toasts.hold(false)"
    >
      @if (toasts.others(); as others) {
        <p class="others">and {{ others }} more</p>
      }
      @for (toast of toasts.shown(); track toast.key) {
        <div class="toast" [class.wrong]="!toast.id">
          <div class="words">
            <p class="title" dir="auto">
              <strong>{{ toast.title }}</strong>
              @if (toast.from; as from) {
                <bdi class="muted">{{ from }}</bdi>
              }
            </p>
            @if (toast.text) {
              <p dir="auto">{{ toast.text }}</p>
            }
          </div>
          @if (toast.id; as id) {
            <button type="button" class="quiet" (click)="go(toast, id)">Show<span class="visually-hidden"> “{{ toast.title }}” in the list</span></button>
          }
          <button type="button" class="quiet close" (click)="dismiss(toast)">
            <span aria-hidden="true">×</span><span class="visually-hidden">Dismiss “{{ toast.title }}”</span>
          </button>
        </div>
      }
    </section>
  `,
})
export class ToastList {
  protected readonly toasts = inject(Toasts);
  readonly #element: HTMLElement = inject(ElementRef).nativeElement;
  /** Somebody wants to see this notification. */
  readonly show = output<string>();

  protected go(toast: Toast, id: string): void {
    this.toasts.dismiss(toast.key);
    this.toasts.hold(false);
    this.show.emit(id);
  }

  protected dismiss(toast: Toast): void {
    const buttons = [...this.#element.querySelectorAll<HTMLElement>(".close")];
    const index = this.toasts.shown().indexOf(toast);
    const next = buttons[index + 1] ?? buttons[index - 1];
    this.toasts.dismiss(toast.key);
    if (next) return next.focus();
    this.toasts.hold(false);
  }
}
