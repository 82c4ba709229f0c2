// Whose notifications to show: a form, and once that is settled a line that says it.

import { afterNextRender, ChangeDetectionStrategy, Component, computed, ElementRef, inject, Injector, input, linkedSignal, output, viewChild } from "@angular/core";
import type { Place } from "./place";

/** Asks for a place. */
@Component({
  selector: "app-who",
  changeDetection: ChangeDetectionStrategy.OnPush,
  template: `
    <section class="card" aria-labelledby="who-title">
      <h2 id="who-title" [class.visually-hidden]="settled()">{{ settled() ? "Showing" : "Whose notifications?" }}</h2>
      @if (settled()) {
        <div class="settled">
          <p class="who">
            <bdi>{{ place().user }}</bdi><span class="muted">&ngsp;in&ngsp;</span><bdi>{{ place().app }}</bdi>
            <span class="where muted">{{ place().url }}</span>
          </p>
          <button type="button" class="quiet" (click)="edit()">Change</button>
        </div>
      } @else {
        <form (submit)="submit($event)">
          <label>App <input #first name="app" dir="auto" required maxlength="128" autocomplete="off" [value]="place().app" /></label>
          <label>User <input name="user" dir="auto" required maxlength="128" autocomplete="off" [value]="place().user" /></label>
          <label>
            Topics <span class="muted">(optional, with commas)</span>
            <input name="topics" dir="auto" autocomplete="off" [value]="place().topics" />
          </label>
          <label>
            Server
            <input
              name="url"
              type="url"
              required
              [value]="place().url"
              [attr.aria-invalid]="problem() ? true : null"
              [attr.aria-describedby]="problem() ? 'who-problem' : null"
            />
          </label>
          @if (problem(); as problem) {
            <p class="problem" id="who-problem" role="alert">{{ problem }}</p>
          }
          <div class="row">
            <button class="primary">Show notifications</button>
            @if (connected()) {
              <button type="button" class="quiet" (click)="editing.set(false)">Cancel</button>
            }
          </div>
        </form>
      }
    </section>
  `,
  styles: `
    .settled {
      display: flex;
      gap: 0.5rem;
      align-items: start;
      justify-content: space-between;
    }
    .settled button {
      margin: -0.25rem -0.5rem;
    }
    .who {
      min-inline-size: 0;
      margin: 0;
      overflow-wrap: anywhere;
    }
    .where {
      display: block;
      margin-block-start: 0.125rem;
      font-size: 0.875rem;
    }
  `,
})
export class Who {
  /** Where to begin. */
  readonly place = input.required<Place>();
  /** Whether somebody's notifications are shown. */
  readonly connected = input.required<boolean>();
  /** Why what was chosen is none. */
  readonly problem = input<string>();
  /** Somebody chose. */
  readonly chosen = output<Place>();

  protected readonly editing = linkedSignal({ source: this.place, computation: () => false });
  readonly #injector = inject(Injector);
  protected readonly settled = computed(() => this.connected() && !this.editing());
  protected readonly first = viewChild<ElementRef<HTMLInputElement>>("first");

  protected edit(): void {
    this.editing.set(true);
    afterNextRender(() => this.first()?.nativeElement.focus(), { injector: this.#injector });
  }

  protected submit(event: Event): void {
    event.preventDefault();
    const form = new FormData(event.target as HTMLFormElement);
    const get = (name: keyof Place) => String(form.get(name));
    this.chosen.emit({ url: get("url"), app: get("app"), user: get("user"), topics: get("topics") });
  }
}
