// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// Joins the cancellation of a task with the receive it waits in, whichever comes first.
final class PendingReceive: Sendable {
  private enum Progress {
    case notStarted
    case started(ReceiveTicket)
    case cancelled
  }
  private let progress = Mutex(Progress.notStarted)

  func started(_ ticket: ReceiveTicket, in store: Store) {
    let isCancelled = progress.withLock { progress -> Bool in
      if case .cancelled = progress { return true }
      progress = .started(ticket)
      return false
    }
    if isCancelled { store.cancel(ticket) }
  }

  func cancel(in store: Store) {
    let ticket = progress.withLock { progress -> ReceiveTicket? in
      defer { progress = .cancelled }
      if case .started(let ticket) = progress { return ticket }
      return nil
    }
    if let ticket { store.cancel(ticket) }
  }
}
