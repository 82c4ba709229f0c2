// What those hear who do not see the page: one polite voice for everything that happens, so that
// nothing is said twice or over something else.

import { ChangeDetectionStrategy, Component, inject, Injectable, signal } from "@angular/core";

/** Says things. */
@Injectable({ providedIn: "root" })
export class Announcer {
  /** What was said last, with its number: the same words again are news. */
  readonly said = signal<{ number: number; text: string }>({ number: 0, text: "" });

  /** Says it when the reader has finished what it is reading. */
  say(text: string): void {
    this.said.update(({ number }) => ({ number: number + 1, text }));
  }
}

/** The region that readers watch. Two in turn, because the same words in one are no change. */
@Component({
  selector: "app-announcements",
  changeDetection: ChangeDetectionStrategy.OnPush,
  template: `
    @let said = announcer.said();
    <p class="visually-hidden" role="status">{{ said.number % 2 ? said.text : "" }}</p>
    <p class="visually-hidden" role="status">{{ said.number % 2 ? "" : said.text }}</p>
  `,
})
export class Announcements {
  protected readonly announcer = inject(Announcer);
}
