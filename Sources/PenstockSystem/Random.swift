// SPDX-License-Identifier: Apache-2.0
internal import CPenstock
internal import Synchronization

/// Where unpredictable numbers come from: salts, store ids, message ids. Injected for repeatable
/// runs.
public protocol RandomSource: Sendable {
  func next() -> UInt64
}

/// The system's generator, asked for many numbers at a time: a call for each would cost a message
/// more than its copying does.
public final class SystemRandom: RandomSource {
  private let numbers = Mutex<[UInt64]>([])
  private static let batch = 256

  /// The machine's randomness.
  public init() {}

  public func next() -> UInt64 {
    numbers.withLock { numbers in
      if let number = numbers.popLast() { return number }
      var fresh = [UInt64](repeating: 0, count: Self.batch)
      // unsafe: the buffer is filled during the call only.
      let isFilled = unsafe fresh.withUnsafeMutableBytes {
        unsafe penstock_random($0.baseAddress, $0.count) == 0
      }
      var generator = SystemRandomNumberGenerator()
      guard isFilled else { return generator.next() }
      let number = fresh.removeLast()
      numbers = fresh
      return number
    }
  }
}
