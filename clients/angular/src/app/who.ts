// Whose notifications to show: a form, and once that is settled a line that says it.

import { afterNextRender, Component, computed, ElementRef, inject, Injector, input, linkedSignal, output, viewChild } from "@angular/core";
import type { Place } from "./place";

/** Asks for a place. */
@Component({
  selector: "app-who",
  template: `
    <section class="card" aria-labelledby="who-title">
      <h2 id="who-title">{{ settled() ? "Showing" : "Whose notifications?" }}</h2>
      @if (settled()) {
        <p class="who">
          <bdi>{{ place().user }}</bdi><span class="muted">&ngsp;in&ngsp;</span><bdi>{{ place().app }}</bdi>
        </p>
        <p class="muted where">{{ place().url }}</p>
        <button type="button" (click)="edit()">Change</button>
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
    .who {
      margin: 0;
      font-size: 1.125rem;
      overflow-wrap: anywhere;
    }
    .where {
      margin: 0.125rem 0 0.75rem;
      font-size: 0.875rem;
      overflow-wrap: anywhere;
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
