// SPDX-License-Identifier: Apache-2.0
import Dispatch
import FuzzSupport
import Penstock
import Synchronization

/// Waits for one completion.
final class Bell<Value: Sendable>: Sendable {
  private let result = Mutex<Value?>(nil)
  private let semaphore = DispatchSemaphore(value: 0)

  func ring(_ outcome: Result<Value, PenstockError>) {
    do throws(PenstockError) {
      let value = try outcome.get()
      result.withLock { $0 = value }
    } catch { check(false, "the store to fuzz fails: \(error)") }
    semaphore.signal()
  }

  func wait() -> Value {
    semaphore.wait()
    guard let value = result.withLock({ $0 }) else { fatalError("a bell rang for nothing") }
    return value
  }
}
