// SPDX-License-Identifier: Apache-2.0
import Synchronization

/// A benchmark that found its subject, or itself, wrong: no figures of it count.
struct BenchFailure: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// Messages of one side, and the sum of their numbers.
final class MessageTally: Sendable {
  private let counts = Mutex((count: 0, sum: 0 as UInt64))
  var count: Int { counts.withLock { $0.count } }
  var sum: UInt64 { counts.withLock { $0.sum } }

  func add(_ count: Int, _ sum: UInt64) {
    counts.withLock { $0 = ($0.count + count, $0.sum &+ sum) }
  }

  /// Compares what was acknowledged with what was received, when nothing is left.
  func check(received: MessageTally) throws {
    guard count == received.count, sum == received.sum else {
      throw BenchFailure(
        "\(count) messages were acknowledged and \(received.count) received; the sums of their "
          + "numbers are \(sum) and \(received.sum)")
    }
  }

  /// Compares what is there with what should be.
  func check(left: Int, deleted: Int) throws {
    guard left == count - deleted else {
      throw BenchFailure(
        "\(count - deleted) messages were acknowledged and not deleted; there are \(left)")
    }
  }
}

/// The groups of one producer, in turns, and how far each is.
struct GroupNumbers {
  private let groups: [Int]
  private var numbers: [UInt64]
  private var place = 0

  init(_ lane: Int, _ workload: Workload) {
    groups = Array(stride(from: lane, to: workload.groups, by: workload.producers))
    numbers = Array(repeating: 0, count: groups.count)
  }

  mutating func next() -> (group: Int, number: UInt64)? {
    guard !groups.isEmpty else { return nil }
    defer {
      numbers[place] += 1
      place = (place + 1) % groups.count
    }
    return (groups[place], numbers[place])
  }
}

/// Of each group, the number that must come next.
struct GroupOrder {
  private var expected: [UInt64]

  init(groups: Int) { expected = Array(repeating: 0, count: groups) }

  mutating func check(_ number: UInt64, of group: Int?) throws {
    guard let group, expected.indices.contains(group) else {
      throw BenchFailure("a message came without its group")
    }
    guard number == expected[group] else {
      throw BenchFailure(
        "of group \(group) message \(number) came where \(expected[group]) was due")
    }
    expected[group] += 1
  }
}
