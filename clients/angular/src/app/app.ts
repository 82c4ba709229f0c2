// The page: who, a bell, how it stands, the list, and a form to send. Everything that happens to
// notifications is in the service; this puts the parts together.

import { ChangeDetectionStrategy, Component, computed, DestroyRef, effect, ElementRef, inject, signal, viewChild } from "@angular/core";
import { takeUntilDestroyed } from "@angular/core/rxjs-interop";
import { Title } from "@angular/platform-browser";
import { Notifications } from "../tidings";
import { Announcements, Announcer } from "./announcer";
import { Bell } from "./bell";
import { Connection } from "./connection";
import { keepFocus } from "./focus-keeper";
import { List } from "./list";
import { Notices } from "./notices";
import { optionsOf, placeOfPage, rememberPlace, type Place } from "./place";
import { Send } from "./send";
import { ToastList } from "./toast-list";
import { Toasts } from "./toasts";
import { Who } from "./who";

/** All of it. */
@Component({
  selector: "app-root",
  changeDetection: ChangeDetectionStrategy.OnPush,
  imports: [Announcements, Bell, Connection, List, Notices, Send, ToastList, Who],
  styleUrl: "./app.css",
  template: `
    <a class="skip" href="#content" (click)="skip($event)">Skip to the notifications</a>
    <header>
      <div class="inner">
        <h1>Tidings</h1>
        <app-connection [state]="notifications.connection()" [before]="notifications.loaded()" (retried)="notifications.retry()" />
        @if (connected()) {
          <app-bell [unread]="notifications.counts()?.unread" (pressed)="list()?.showUnread()" />
        }
      </div>
    </header>
    <div class="columns">
      <aside aria-label="Settings and test">
        <app-who [place]="place()" [connected]="connected()" [problem]="problem()" (chosen)="connect($event)" />
        @if (connected()) {
          <app-send [user]="place().user" />
        }
      </aside>
      <main id="content" tabindex="-1">
        <app-notices />
        @if (connected()) {
          <app-list [user]="place().user" />
        } @else {
          <div class="card welcome">
            <h2 #welcome tabindex="-1">Notifications, as they come</h2>
            <p class="muted">Name an app and a user, and everything that is sent to them appears here: at once, in order, and never lost.</p>
          </div>
        }
      </main>
    </div>
    <app-toasts (show)="list()?.show($event)" />
    <app-announcements />
  `,
})
export class App {
  protected readonly notifications = inject(Notifications);
  readonly #toasts = inject(Toasts);
  readonly #announcer = inject(Announcer);
  protected readonly list = viewChild(List);
  protected readonly welcome = viewChild<ElementRef<HTMLElement>>("welcome");
  protected readonly place = signal<Place>(placeOfPage());
  protected readonly problem = signal<string | undefined>(undefined);
  protected readonly connected = computed(() => this.notifications.options() !== undefined);
  protected readonly unread = computed(() => this.notifications.counts()?.unread ?? 0);

  constructor() {
    const title = inject(Title);
    this.notifications.arrivals.pipe(takeUntilDestroyed(inject(DestroyRef))).subscribe((notification) => this.#toasts.arrived(notification));
    effect(() => title.setTitle(this.unread() ? `(${this.unread()}) Tidings` : "Tidings"));
    keepFocus((options) => this.#focus(options));
    const { app, user } = this.place();
    if (app && user) this.connect(this.place());
  }

  protected connect(place: Place): void {
    try {
      this.notifications.connect(optionsOf(place));
    } catch (error) {
      // Made of what was typed: an address or a name that is none.
      this.problem.set(error instanceof TypeError ? error.message : String(error));
      return;
    }
    // What came to one is not for the next.
    this.#toasts.clear();
    this.#announcer.say("");
    this.problem.set(undefined);
    this.place.set(place);
    rememberPlace(place);
  }

  protected skip(event: Event): void {
    event.preventDefault(); // the address stays as it is
    this.#focus();
  }

  /** On the heading of what the page is about. */
  #focus(options?: FocusOptions): void {
    (this.list() ?? this.welcome()?.nativeElement)?.focus(options);
  }
}
