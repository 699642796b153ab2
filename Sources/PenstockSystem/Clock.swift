// SPDX-License-Identifier: Apache-2.0
internal import CPenstock

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Musl)
  internal import Musl
#else
  internal import Darwin
#endif

/// The two clocks of a machine. Injected, so that a test can move time.
public protocol SystemClock: Sendable {
  /// Milliseconds since 1970-01-01 UTC. May jump either way.
  func wallMilliseconds() -> Int64
  /// Nanoseconds that only grow, at the speed of real time, also while the machine sleeps.
  func monotonicNanoseconds() -> UInt64
  /// Waits for so long, or until the task is cancelled. Unless a clock does it in another way, the
  /// time is the machine's.
  func sleep(_ duration: Duration) async
}

extension SystemClock {
  public func sleep(_ duration: Duration) async {
    // It throws when it is cancelled: whoever sleeps looks for that.
    do { try await ContinuousClock().sleep(for: duration) } catch {}
  }
}

/// The machine's own clocks.
public struct RealClock: SystemClock {
  /// The clocks of this machine.
  public init() {}

  public func wallMilliseconds() -> Int64 {
    let time = Self.read(CLOCK_REALTIME)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }

  public func monotonicNanoseconds() -> UInt64 {
    #if os(Linux)
      let time = Self.read(CLOCK_BOOTTIME)
    #else
      let time = Self.read(CLOCK_MONOTONIC)
    #endif
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  private static func read(_ clock: clockid_t) -> timespec {
    var time = timespec()
    _ = unsafe clock_gettime(clock, &time)
    return time
  }
}
