// One notification of the list. Names and texts may be of any script: each is laid out in its own
// direction, and none changes the order of what is around it.

import { ChangeDetectionStrategy, Component, computed, inject, input, output, signal } from "@angular/core";
import type { Mark } from "@tidings/client";
import type { Item } from "../tidings";
import { Age } from "./age";
import { headed, summary } from "./describe";

const LONG = 420; // characters, of which about six lines are shown at first

/** An element of the list. */
@Component({
  selector: "li[appItem]",
  changeDetection: ChangeDetectionStrategy.OnPush,
  styleUrl: "./item.css",
  template: `
    <article [id]="item().id" tabindex="-1" [class.unread]="!item().read" [attr.aria-labelledby]="item().id + '-title'">
      <header dir="auto">
        <h3 [id]="item().id + '-title'">
          @if (!item().read) {
            <span class="visually-hidden" dir="ltr">Unread:&ngsp;</span>
          }
          <span class="heading">{{ said().heading }}</span>
          @if (said().from; as from) {
            <span class="from" dir="ltr">&ngsp;from <bdi>{{ from }}</bdi></span>
          }
        </h3>
        <time dir="ltr" [attr.datetime]="item().created_at" [title]="age.exact(item().created_at)">{{ age.of(item().created_at) }}</time>
      </header>
      @if (said().text; as text) {
        <p class="text" dir="auto" [class.clamped]="long() && !whole()">{{ text }}</p>
      }
      @if (said().facts.length) {
        <dl>
          @for (fact of said().facts; track $index) {
            <div>
              <dt dir="auto">{{ fact[0] }}</dt>
              <dd dir="auto">{{ fact[1] }}</dd>
            </div>
          }
        </dl>
      }
      <footer>
        @if (whom(); as whom) {
          <span class="whom">for <bdi>{{ whom }}</bdi></span>
        }
        @if (long()) {
          <button type="button" class="quiet" [attr.aria-expanded]="whole()" (click)="whole.set(!whole())">
            {{ whole() ? "Show less" : "Show all" }}<span class="visually-hidden"> of “{{ line() }}”</span>
          </button>
        }
        <button type="button" class="quiet" (click)="marked.emit(item().read ? 'unread' : 'read')">
          Mark as {{ item().read ? "unread" : "read" }}<span class="visually-hidden">: {{ line() }}</span>
        </button>
        <button type="button" class="quiet archive" (click)="marked.emit('archived')">
          Archive<span class="visually-hidden">: {{ line() }}</span>
        </button>
      </footer>
    </article>
  `,
})
export class ListItem {
  protected readonly age = inject(Age);
  /** What to show. */
  readonly item = input.required<Item>();
  /** Somebody wants it marked so. */
  readonly marked = output<Mark>();

  protected readonly said = computed(() => headed(this.item()));
  protected readonly line = computed(() => summary(this.item(), 60));
  protected readonly long = computed(() => (this.said().text?.length ?? 0) > LONG);
  protected readonly whole = signal(false);
  protected readonly whom = computed(() => {
    const { audience } = this.item();
    if (audience === "everyone") return "everyone";
    return "topic" in audience ? audience.topic : undefined;
  });
}
