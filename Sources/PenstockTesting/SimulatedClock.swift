// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem
internal import Synchronization

/// Clocks that stand still until a test moves them.
public final class SimulatedClock: SystemClock {
  private struct Time {
    /// What the monotonic clock shows, in nanoseconds.
    var nanoseconds: UInt64
    /// Wall clock less monotonic clock, in milliseconds.
    var offset: Int64

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

  /// Lets time pass: both clocks move by `duration`, which is not negative.
  public func advance(by duration: Duration) {
    let (seconds, attoseconds) = duration.components
    precondition(seconds >= 0 && attoseconds >= 0, "time does not go back; use setWall")
    let nanoseconds = UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    time.withLock { $0.nanoseconds += nanoseconds }
  }

  /// Sets the wall clock, either way, as an administrator would. The monotonic clock stays.
  public func setWall(milliseconds: Int64) {
    time.withLock { $0.offset += milliseconds - $0.wall }
  }
}
