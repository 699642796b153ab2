// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem
internal import Synchronization

/// Clocks that stand still until a test moves them.
///
/// Also a `Clock` of the standard library: hand it to code that takes `any Clock<Duration>`. Who
/// sleeps on it wakes when it is moved; a `Simulation` moves it by itself.
public final class SimulatedClock: SystemClock {
  private struct Sleeper {
    var id: UInt64
    /// By the monotonic clock, in nanoseconds.
    var deadline: UInt64
    var continuation: CheckedContinuation<Void, any Error>
  }

  private struct Time {
    /// What the monotonic clock shows, in nanoseconds.
    var nanoseconds: UInt64
    /// Wall clock less monotonic clock, in milliseconds.
    var offset: Int64
    /// In the order in which they fell asleep.
    var sleepers: [Sleeper] = []
    var lastID: UInt64 = 0

    var wall: Int64 { offset + Int64(nanoseconds / 1_000_000) }
  }

  private let time: Mutex<Time>

  /// Clocks that show `wallMilliseconds` since 1970 and `monotonicNanoseconds`.
  public init(
    wallMilliseconds: Int64 = 1_700_000_000_000, monotonicNanoseconds: UInt64 = 1_000_000_000
  ) {
    let elapsed = Int64(monotonicNanoseconds / 1_000_000)
    time = Mutex(Time(nanoseconds: monotonicNanoseconds, offset: wallMilliseconds - elapsed))
  }

  /// Milliseconds since 1970, as set or advanced to.
  public func wallMilliseconds() -> Int64 { time.withLock { $0.wall } }

  /// Nanoseconds, as advanced to.
  public func monotonicNanoseconds() -> UInt64 { time.withLock { $0.nanoseconds } }

  /// Lets time pass: both clocks move by `duration`, which is not negative. Whose time has come
  /// wakes up, the earliest first.
  public func advance(by duration: Duration) {
    let (seconds, attoseconds) = duration.components
    precondition(seconds >= 0 && attoseconds >= 0, "time does not go back; use setWall")
    let nanoseconds = UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    let woken = time.withLock { time -> [Sleeper] in
      time.nanoseconds += nanoseconds
      let woken = time.sleepers.filter { $0.deadline <= time.nanoseconds }
      time.sleepers.removeAll { $0.deadline <= time.nanoseconds }
      return woken.sorted { ($0.deadline, $0.id) < ($1.deadline, $1.id) }
    }
    for sleeper in woken { sleeper.continuation.resume() }
  }

  /// Sets the wall clock, either way, as an administrator would. The monotonic clock stays.
  public func setWall(milliseconds: Int64) {
    time.withLock { $0.offset += milliseconds - $0.wall }
  }

  /// Waits until the clock was moved by so much, or the task is cancelled.
  public func sleep(_ duration: Duration) async {
    do { try await sleep(for: duration) } catch {}
  }

  /// When the next sleeper wakes, by the monotonic clock.
  var nextWake: UInt64? { time.withLock { $0.sleepers.lazy.map(\.deadline).min() } }
}

extension SimulatedClock: Clock {
  /// A time on the monotonic clock.
  public struct Instant: InstantProtocol, Sendable {
    /// As shown by the monotonic clock.
    public var nanoseconds: UInt64

    public func advanced(by duration: Duration) -> Instant {
      let (seconds, attoseconds) = duration.components
      let sum = Int64(nanoseconds) + seconds * 1_000_000_000 + attoseconds / 1_000_000_000
      return Instant(nanoseconds: UInt64(max(0, sum)))
    }

    public func duration(to other: Instant) -> Duration {
      .nanoseconds(Int64(other.nanoseconds) - Int64(nanoseconds))
    }

    public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }
  }

  /// The time on the monotonic clock.
  public var now: Instant { Instant(nanoseconds: monotonicNanoseconds()) }

  /// One nanosecond.
  public var minimumResolution: Duration { .nanoseconds(1) }

  /// Waits until the clock was moved to `deadline`.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before.
  public func sleep(until deadline: Instant, tolerance: Duration?) async throws {
    let id = time.withLock { time -> UInt64 in
      time.lastID += 1
      return time.lastID
    }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let isOver = time.withLock { time -> Bool in
          // Under the lock, so that a cancellation is seen here or finds the sleeper there.
          if Task.isCancelled || deadline.nanoseconds <= time.nanoseconds { return true }
          time.sleepers.append(
            Sleeper(id: id, deadline: deadline.nanoseconds, continuation: continuation))
          return false
        }
        if isOver { continuation.resume(with: Result { try Task.checkCancellation() }) }
      }
    } onCancel: {
      let sleeper = time.withLock { time -> Sleeper? in
        guard let index = time.sleepers.firstIndex(where: { $0.id == id }) else { return nil }
        return time.sleepers.remove(at: index)
      }
      sleeper?.continuation.resume(throwing: CancellationError())
    }
  }
}
