// The list: what is not archived, newest first. It grows at its end as somebody scrolls there, by a
// button that also works by hand.

import { afterNextRender, ChangeDetectionStrategy, Component, computed, DestroyRef, effect, ElementRef, inject, Injector, input, viewChild } from "@angular/core";
import type { Mark } from "@tidings/client";
import { Notifications, type Item } from "../tidings";
import { Announcer } from "./announcer";
import { ListItem } from "./item";
import { Toasts } from "./toasts";

const SAID: Record<Mark, string> = {
  seen: "Seen",
  read: "Marked as read",
  unread: "Marked as unread",
  archived: "Archived",
  unarchived: "Back in the list",
};

/** The notifications of whoever is connected. */
@Component({
  selector: "app-list",
  changeDetection: ChangeDetectionStrategy.OnPush,
  imports: [ListItem],
  template: `
    <div class="bar">
      <h2 #heading id="list-title" tabindex="-1">Notifications</h2>
      @if (shown().length) {
        <button type="button" class="quiet" [attr.aria-disabled]="unread() === 0" (click)="markAll()">Mark all as read</button>
      }
    </div>
    @if (shown().length) {
      <ul class="list card" role="list" aria-labelledby="list-title">
        @for (item of shown(); track item.id) {
          <li appItem [item]="item" (marked)="mark(item, $event)"></li>
        }
      </ul>
    } @else if (empty()) {
      <div class="card nothing">
        <p><strong>Nothing yet</strong></p>
        <p class="muted">What is sent to <bdi>{{ user() }}</bdi> appears here at once. Send a test notification to see it.</p>
      </div>
    } @else if (!notifications.loaded()) {
      <p class="muted nothing">{{ waiting() ? "The list comes as soon as the server answers." : "" }}</p>
    }
    @if (notifications.next()) {
      <button #more type="button" class="more" [attr.aria-disabled]="notifications.loadingMore()" (click)="loadMore(true)">
        {{ notifications.loadingMore() ? "Loading…" : "Show older ones" }}
      </button>
    } @else if (shown().length) {
      <p class="muted end">These are all.</p>
    }
  `,
  styleUrl: "./list.css",
})
export class List {
  protected readonly notifications = inject(Notifications);
  readonly #announcer = inject(Announcer);
  readonly #toasts = inject(Toasts);
  readonly #injector = inject(Injector);
  readonly #element: HTMLElement = inject(ElementRef).nativeElement;
  /** Whose they are. */
  readonly user = input.required<string>();

  protected readonly more = viewChild<ElementRef<HTMLElement>>("more");
  protected readonly heading = viewChild.required<ElementRef<HTMLElement>>("heading");
  protected readonly shown = computed(() => this.notifications.items().filter(({ archived }) => !archived));
  protected readonly unread = computed(() => this.notifications.counts()?.unread ?? 0);
  protected readonly empty = computed(() => this.notifications.loaded() && this.notifications.next() === null);
  protected readonly waiting = computed(() => this.notifications.connection() !== "failed");

  constructor() {
    const observer = new IntersectionObserver((seen) => seen.some(({ isIntersecting }) => isIntersecting) && void this.loadMore(false), {
      rootMargin: "400px", // so that who scrolls seldom waits
    });
    // Observed anew after each page, because a button that stays in sight is not told of again.
    effect(() => {
      this.notifications.next();
      observer.disconnect();
      const more = this.more();
      if (more) observer.observe(more.nativeElement);
    });
    inject(DestroyRef).onDestroy(() => observer.disconnect());
  }

  /** Puts the focus on the list's beginning. */
  focus(options?: FocusOptions): void {
    this.heading().nativeElement.focus(options);
  }

  /** Goes to one, if it is in the list. */
  show(id: string): void {
    const article = this.#article(id);
    article?.scrollIntoView({ block: "center" });
    article?.focus({ preventScroll: true });
  }

  /** Goes to the newest unread one, or at least to the list. */
  showUnread(): void {
    const newest = this.shown().find(({ read }) => !read);
    if (newest) this.show(newest.id);
    else this.focus();
  }

  protected async mark(item: Item, mark: Mark): Promise<void> {
    const shown = this.shown();
    const index = shown.indexOf(item);
    const focused = this.#article(item.id)?.contains(document.activeElement);
    const next = focused && mark === "archived" ? (shown[index + 1] ?? shown[index - 1]) : undefined;
    await this.#did(SAID[mark], this.notifications.mark(mark, [item.id]));
    if (next) afterNextRender(() => this.#archiveNext(next.id), { injector: this.#injector });
  }

  /** To the next one's button, so that several can be archived in a row; unless somebody has gone on. */
  #archiveNext(id: string): void {
    const lost = [document.body, this.heading().nativeElement].includes(document.activeElement as HTMLElement);
    if (lost) this.#article(id)?.querySelector<HTMLElement>(".archive")?.focus();
  }

  protected async markAll(): Promise<void> {
    if (this.unread()) await this.#did("All marked as read", this.notifications.markAll("read"));
  }

  /** By hand the focus goes on to the first one that came; by scrolling it stays where it is. */
  protected async loadMore(byHand: boolean): Promise<void> {
    const before = this.shown().length;
    try {
      await this.notifications.loadMore();
    } catch (error) {
      return this.#toasts.failed("Older ones could not be loaded", error);
    }
    const first = this.shown()[before];
    if (byHand && first) afterNextRender(() => this.#article(first.id)?.focus(), { injector: this.#injector });
  }

  async #did(said: string, done: Promise<void>): Promise<void> {
    try {
      await done;
      this.#announcer.say(said);
    } catch (error) {
      this.#toasts.failed("This did not work", error);
    }
  }

  #article(id: string): HTMLElement | null {
    return this.#element.querySelector(`[id="${id}"]`);
  }
}
