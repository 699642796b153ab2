// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import Synchronization

/// When the requests of an open loop are due: so many in a second, in turns over the lanes, however
/// long each takes.
///
/// A latency that counts from when its request was due has no coordinated omission: a request that
/// was late because one before it was slow has waited, too.
struct Schedule: Sendable {
  /// Nanoseconds, by the monotonic clock.
  var start: UInt64
  /// Requests in a second, over all lanes.
  var rate: Double
  var lanes: Int

  /// When the nth request of a lane is due.
  func due(_ number: Int, lane: Int) -> UInt64 {
    start + UInt64((Double(number * lanes + lane) * 1e9 / rate).rounded())
  }
}

/// Wakes the lanes of an open loop when their next request is due, from a thread of its own: timers
/// of the cooperative pool come too late to measure by.
final class Pacer: Sendable {
  typealias Wake = @Sendable () -> Void

  private struct State {
    /// By lane: the request that it waits for.
    var waiting: [(number: Int, wake: Wake)?]
    var isOver = false
  }

  private let schedule: Schedule
  private let state: Mutex<State>
  private let isOver = Atomic<Bool>(false)
  private let bell = Doorbell()
  private let clock = RealClock()
  /// The system's timers are late by about this; the rest is spun.
  private static let slack: UInt64 = 60_000

  init(_ schedule: Schedule) {
    self.schedule = schedule
    state = Mutex(State(waiting: Array(repeating: nil, count: schedule.lanes)))
  }

  /// Calls `wake` when the nth request of a lane is due: at once if it is, else from the thread.
  func wait(_ number: Int, lane: Int, _ wake: @escaping Wake) {
    let isDue = state.withLock { state in
      // Looked at under the lock: the thread does not pass this request meanwhile.
      if state.isOver || schedule.due(number, lane: lane) <= clock.monotonicNanoseconds() {
        return true
      }
      state.waiting[lane] = (number, wake)
      return false
    }
    if isDue { wake() }
  }

  func run() throws -> SystemThread {
    try SystemThread(name: "penstock-pacer") { self.pace() }
  }

  /// Ends the thread; who waits then is woken at once.
  func stop() {
    isOver.store(true, ordering: .relaxed)
    bell.ring()
  }

  private func pace() {
    var number = 0
    while !isOver.load(ordering: .relaxed) {
      for lane in 0..<schedule.lanes {
        let due = schedule.due(number, lane: lane)
        var now = clock.monotonicNanoseconds()
        if due > now + Self.slack { _ = bell.wait(nanoseconds: due - now - Self.slack) }
        repeat {
          now = clock.monotonicNanoseconds()
        } while now < due
          && !isOver.load(ordering: .relaxed)
        state.withLock { state -> Wake? in
          guard let waiting = state.waiting[lane], waiting.number <= number else { return nil }
          state.waiting[lane] = nil
          return waiting.wake
        }?()
      }
      number += 1
    }
    let left = state.withLock { state in
      state.isOver = true
      defer { state.waiting = state.waiting.map { _ in nil } }
      return state.waiting
    }
    for waiting in left { waiting?.wake() }
  }
}
