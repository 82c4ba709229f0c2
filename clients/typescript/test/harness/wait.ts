// Waiting, always with a deadline, and never by sleeping.

export const DEADLINE = 90_000; // ms; generous, because machines that test are slow

/** What a promise resolves to, unless it takes too long. */
export async function within<T>(promise: Promise<T>, what: string, ms = DEADLINE): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A list that can be waited for. */
export class Seen<T> {
  readonly all: T[] = [];
  #wake = new Set<() => void>();

  push(item: T): void {
    this.all.push(item);
    for (const wake of this.#wake) wake();
  }

  /** Resolves when what has come satisfies a condition. */
  async until(condition: (all: readonly T[]) => boolean, what: string, ms?: number): Promise<readonly T[]> {
    let wake = () => {};
    const happened = new Promise<void>((resolve) => {
      wake = () => condition(this.all) && resolve();
      this.#wake.add(wake);
      wake();
    });
    try {
      await within(happened, what, ms);
    } catch (error) {
      throw new Error(`${(error as Error).message}; came: ${JSON.stringify(this.all)}`);
    } finally {
      this.#wake.delete(wake);
    }
    return this.all;
  }

  /** Resolves when so many have come. */
  count(count: number, what: string): Promise<readonly T[]> {
    return this.until((all) => all.length >= count, `${count} × ${what}`);
  }
}
