// What a person has to know beside the list: why there is no connection, if something other than
// waiting helps, and that notifications may be missing.

import { ChangeDetectionStrategy, Component, computed, inject } from "@angular/core";
import { GAP_WORDS, Notifications, problemWords, type ProblemWords } from "../tidings";
import { Announcer } from "./announcer";

/** The notices, if there are any. */
@Component({
  selector: "app-notices",
  changeDetection: ChangeDetectionStrategy.OnPush,
  template: `
    @if (problem(); as problem) {
      <section class="notice" [class.danger]="serious()" aria-labelledby="problem-title">
        <h2 id="problem-title">{{ problem.title }}</h2>
        <p>{{ problem.detail }}</p>
        @if (problem.setting; as setting) {
          <p><code tabindex="0" role="group" aria-label="The setting">{{ setting.split("=")[0] }}=<wbr />{{ setting.split("=")[1] }}</code></p>
        }
        <div class="row">
          <button type="button" (click)="notifications.retry()">Try again now</button>
          @if (problem.setting; as setting) {
            <button type="button" class="quiet" (click)="copy(setting)">Copy the setting</button>
          }
        </div>
      </section>
    }
    @if (gap(); as gap) {
      <section class="notice" aria-labelledby="gap-title">
        <h2 id="gap-title">Some notifications may be missing</h2>
        <p>{{ gap }}</p>
        <button type="button" (click)="notifications.dismissGap()">I have seen this</button>
      </section>
    }
    <p class="visually-hidden" role="alert">{{ said() }}</p>
  `,
})
export class Notices {
  protected readonly notifications = inject(Notifications);
  readonly #announcer = inject(Announcer);

  /** While there is a list and waiting helps, the words beside the bell are enough: nothing has to jump. */
  protected readonly problem = computed(() => {
    const problem = this.notifications.problem();
    const words = problem && problemWords(problem);
    return words && (this.#hopeless(words) || !this.notifications.loaded()) ? words : undefined;
  });
  protected readonly serious = computed(() => this.#hopeless(this.problem()));
  protected readonly gap = computed(() => {
    const gap = this.notifications.gap();
    return gap && GAP_WORDS[gap.reason];
  });
  /** One region that is always there: one that comes with its words is not read by every reader. */
  protected readonly said = computed(() => {
    const problem = this.serious() ? this.problem() : undefined;
    if (problem) return `${problem.title}. ${problem.detail} ${problem.setting ?? ""}`;
    return this.gap() ? `Some notifications may be missing. ${this.gap()}` : "";
  });

  /** Waiting alone will not help. */
  #hopeless(words: ProblemWords | undefined): boolean {
    return words !== undefined && (words.setting !== undefined || this.notifications.connection() === "failed");
  }

  protected async copy(setting: string): Promise<void> {
    await navigator.clipboard.writeText(setting);
    this.#announcer.say("Copied");
  }
}
