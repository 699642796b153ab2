// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import PenstockSQS
internal import Synchronization

/// A reply on its way to the connection that waits for it.
struct Delivery: Sendable {
  /// `HTTPConnection.id`.
  var connection: UInt64
  /// Which request of the connection; a connection that has moved on ignores it.
  var request: UInt64
  var reply: SQSReply
}

/// Brings replies from engine threads to one event loop: those of one sync in one hop.
final class ReplyMailbox: Sendable {
  private struct State {
    var waiting: [Delivery] = []
    /// False when the event loop takes no more work.
    var isOpen = true
  }

  private let state = Mutex(State())

  /// Puts a reply in and, if it is the first since the last `takeAll`, schedules a drain.
  func post(_ delivery: Delivery, to loop: NIOLoopBound<ConnectionTable>) {
    state.withLock { state in
      guard state.isOpen else { return }
      state.waiting.append(delivery)
      // Under the lock, so that nothing is scheduled on a loop that `close` has let go.
      if state.waiting.count == 1 { loop.eventLoop.execute { loop.value.deliver() } }
    }
  }

  func takeAll() -> [Delivery] {
    state.withLock { state in
      let waiting = state.waiting
      state.waiting = []
      return waiting
    }
  }

  /// Drops what is there and what still comes: nobody is connected any more.
  func close() {
    state.withLock { state in
      state.isOpen = false
      state.waiting = []
    }
  }
}
