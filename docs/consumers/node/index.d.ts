import type { Event, Status } from './events';

export * from './events';

/** Thrown by a handler for an event that it can never handle: it goes to `<queue>.DLQ`. */
export class Reject extends Error {}

/** What was handled. In earnest a table whose rows are written in the transaction of the work. */
export interface Seen {
  has(key: string): Promise<boolean>;
  add(key: string): Promise<void>;
}

/** The last 100,000 keys; forgotten when the process ends. */
export class SeenInMemory implements Seen {
  has(key: string): Promise<boolean>;
  add(key: string): Promise<void>;
}

/** The highest rank of each message's statuses, which come in any order. */
export class Ranks {
  isLate(status: Status): boolean;
}

/**
 * Hands the events of a queue to `handle`, one at a time, for ever; `replayId` is `''` unless a replay
 * published it. When `handle` returns the event is acknowledged. `Reject` sends it to the dead letters, as
 * what is no event; any other error gives it back to the queue. `bind`: the queue is the consumer's own,
 * declared here and bound by these keys, those of one tenant for example: `message.*.acme`.
 */
export function consume(options: {
  url: string;
  queue: string;
  handle: (event: Event, replayId: string) => void | Promise<void>;
  bind?: string[];
  seen?: Seen;
}): Promise<never>;
