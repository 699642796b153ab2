// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// Joins the cancellation of a task with the receive it waits in, whichever comes first.
final class PendingReceive: Sendable {
  private let progress = Mutex((ticket: ReceiveTicket?.none, isCancelled: false))

  func started(_ ticket: ReceiveTicket, in store: Store) {
    let isCancelled = progress.withLock { progress in
      progress.ticket = ticket
      return progress.isCancelled
    }
    if isCancelled { store.cancel(ticket) }
  }

  func cancel(in store: Store) {
    let ticket = progress.withLock { progress in
      progress.isCancelled = true
      return progress.ticket
    }
    if let ticket { store.cancel(ticket) }
  }
}
