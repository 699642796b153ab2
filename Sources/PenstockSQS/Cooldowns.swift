// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import Synchronization

/// The minute that Amazon lets pass between two purges of a queue, and before the name of a deleted
/// queue is free again. Not kept over restarts: nothing but the client's patience hangs on it.
final class Cooldowns: Sendable {
  private static let milliseconds: Int64 = 60_000
  /// When each name began to rest.
  private let began = Mutex<[String: Timestamp]>([:])

  /// False when the name rests. If not, it rests from now on.
  func start(_ name: String, at now: Timestamp) -> Bool {
    began.withLock { began in
      if let before = began[name], now.milliseconds - before.milliseconds < Self.milliseconds {
        return false
      }
      if began.count >= 10_000 {
        began = began.filter { now.milliseconds - $0.value.milliseconds < Self.milliseconds }
      }
      began[name] = now
      return true
    }
  }

  /// Lets a name go again, because nothing came of it.
  func end(_ name: String) { began.withLock { $0[name] = nil } }

  func rests(_ name: String, at now: Timestamp) -> Bool {
    began.withLock { began in
      began[name].map { now.milliseconds - $0.milliseconds < Self.milliseconds } ?? false
    }
  }
}
