// SPDX-License-Identifier: Apache-2.0
import Foundation
import PenstockSystem
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Producers that are threads of this process, each with a closed loop of its own.
enum ThreadedLoad {
  /// Runs `round` again and again on each thread; it answers how many messages it moved.
  static func run(
    _ producers: Int, _ plan: LoadPlan, _ round: @escaping @Sendable (_ producer: Int) throws -> Int
  ) throws -> Measurement {
    let clock = RealClock()
    let start = clock.monotonicNanoseconds() + UInt64(plan.warmUp * 1e9)
    let end = start + UInt64(plan.seconds * 1e9)
    let total = Mutex(Measurement())
    let failure = Mutex<(any Error)?>(nil)
    let counter = RoundCounter(plan.rounds)
    let group = DispatchGroup()
    for producer in 0..<producers {
      group.enter()
      let thread = Thread {
        var result = Measurement()
        var now = clock.monotonicNanoseconds()
        while now < end, counter.takes() {
          let messages: Int
          do { messages = try round(producer) } catch {
            failure.withLock { $0 = error }
            break
          }
          let after = clock.monotonicNanoseconds()
          if now >= start {
            result.record(messages, from: now, to: after, since: start)
          }
          now = after
        }
        total.withLock { $0.add(result) }
        group.leave()
      }
      thread.start()
    }
    group.wait()
    if let error = failure.withLock({ $0 }) { throw error }
    return total.withLock { $0 }
  }
}

/// Rounds that may begin yet.
final class RoundCounter: Sendable {
  private let left: Mutex<Int>

  init(_ rounds: Int?) { left = Mutex(rounds ?? Int.max) }

  func takes() -> Bool {
    left.withLock { left in
      guard left > 0 else { return false }
      left -= 1
      return true
    }
  }
}

/// No queue: each producer writes its bytes, in whole blocks of 4096, over zeros in a region of its
/// own of one file, and syncs. A cycle is that, and a block for the deletes.
struct RawPeer: PeerSystem {
  let name = "raw"
  let durability = "pwrite, fdatasync, in each thread"
  var directory: String
  var body: Int

  func run(_ work: PeerWork, queue: String, _ plan: LoadPlan) async throws -> Measurement? {
    let path = "\(directory)/\(queue).raw"
    let block = roundUp(work.batch * body, to: 4096)
    let region = max(roundUp((64 << 20) / work.producers, to: 4096), 16 * (block + 4096))
    let file = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw LoadError("\(path): \(LoadLoop.error(errno))") }
    defer {
      close(file)
      unlink(path)
    }
    let zeros = [UInt8](repeating: 0, count: 1 << 20)
    for offset in stride(from: 0, to: region * work.producers, by: zeros.count) {
      try Self.write(zeros, file, offset)
    }
    guard fsync(file) == 0 else { throw LoadError("fsync: \(LoadLoop.error(errno))") }
    let bytes = [UInt8](repeating: 0x78, count: block)
    let deletes = [UInt8](repeating: 0x79, count: 4096)
    let offsets = (0..<work.producers).map { Offset(region * $0) }
    return try ThreadedLoad.run(work.producers, plan) { producer in
      let first = region * producer
      for part in work.cycles ? [bytes, deletes] : [bytes] {
        var offset = offsets[producer].value
        if offset + part.count > first + region { offset = first }
        try Self.write(part, file, offset)
        guard fdatasync(file) == 0 else { throw LoadError("fdatasync: \(LoadLoop.error(errno))") }
        offsets[producer].value = offset + part.count
      }
      return work.batch
    }
  }

  /// The next offset of one thread.
  private final class Offset: Sendable {
    private let stored: Atomic<Int>
    init(_ value: Int) { stored = Atomic(value) }
    var value: Int {
      get { stored.load(ordering: .relaxed) }
      set { stored.store(newValue, ordering: .relaxed) }
    }
  }

  private static func write(_ bytes: [UInt8], _ file: Int32, _ offset: Int) throws {
    let count = bytes.withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, off_t(offset)) }
    guard count == bytes.count else { throw LoadError("pwrite: \(LoadLoop.error(errno))") }
  }
}
