// SPDX-License-Identifier: Apache-2.0
import Foundation
import PenstockSystem

/// What was sent to one queue and received from it, as far as answers of the SQS API tell.
final class WireCheck {
  /// Whether bodies begin with when they were sent, and which message of which group they are.
  let isStamped: Bool
  let sent = MessageTally()
  let received = MessageTally()
  var deleted = 0
  /// Whether nobody sends any more, so that what is not there does not come.
  var isOver = true
  /// When what comes counts.
  var window: Range<UInt64> = 0..<0
  /// From when stamped messages were sent until they came.
  private(set) var delivered = Measurement()

  private let body: [UInt8]
  private var order: GroupOrder?
  private let clock = RealClock()

  /// Bytes that a stamp takes: two numbers of 16 hexadecimal digits.
  static let stampSize = 32
  private static let digits = Array("0123456789abcdef".utf8)

  init(_ workload: Workload) {
    isStamped = workload.kind.isStamped
    body = Array(Self.text(workload.body).utf8)
    if workload.kind == .groups { order = GroupOrder(groups: workload.groups) }
  }

  // MARK: Bodies

  /// A body of so many bytes, of characters that JSON does not escape.
  static func text(_ count: Int) -> String {
    String(decoding: (0..<count).map { 0x61 + UInt8($0 &* 7 % 26) }, as: UTF8.self)
  }

  /// What follows the stamp.
  static func unstamped(_ count: Int) -> Substring { text(count).dropFirst(stampSize) }

  /// The identifier of the nth message of a group.
  static func number(_ number: UInt64, of group: Int) -> UInt64 { UInt64(group) << 40 | number }

  static func put(_ value: UInt64, in bytes: inout [UInt8], at place: Int) {
    for digit in 0..<16 {
      bytes[place + digit] = digits[Int(value >> UInt64(60 - 4 * digit) & 15)]
    }
  }

  private static func number(in body: UnsafeRawBufferPointer, at place: Int) throws -> UInt64 {
    guard let number = UInt64(body.text(place..<place + 16), radix: 16) else {
      throw BenchFailure("the body of a message is another")
    }
    return number
  }

  // MARK: Answers

  /// Counts what a send of so many messages came to.
  func noteSent(_ answer: UnsafeRawBufferPointer, _ count: Int) throws {
    let identifiers = HTTPLoad.values(of: "\"MessageId\"", in: answer)
    guard identifiers.count == count else {
      throw LoadError("a send of \(count) was answered with \(answer.text(0..<answer.count))")
    }
    sent.add(count, Self.sum(identifiers, answer))
  }

  /// Counts so many messages that came, and compares them with what was sent.
  func noteReceived(_ answer: UnsafeRawBufferPointer, _ count: Int) throws {
    guard count > 0 else { return }
    let came = clock.monotonicNanoseconds()
    let identifiers = HTTPLoad.values(of: "\"MessageId\"", in: answer)
    let bodies = HTTPLoad.values(of: "\"Body\"", in: answer)
    guard identifiers.count == count, bodies.count == count else {
      throw BenchFailure(
        "\(count) messages came with \(identifiers.count) identifiers and \(bodies.count) bodies")
    }
    for range in bodies { try note(UnsafeRawBufferPointer(rebasing: answer[range]), came) }
    received.add(count, Self.sum(identifiers, answer))
  }

  private func note(_ body: UnsafeRawBufferPointer, _ came: UInt64) throws {
    guard body.count == self.body.count else {
      throw BenchFailure("a body of \(self.body.count) bytes came as \(body.count)")
    }
    let start = isStamped ? Self.stampSize : 0
    let isIntact = self.body.withUnsafeBytes {
      guard let ours = body.baseAddress, let theirs = $0.baseAddress else { return true }
      return memcmp(ours + start, theirs + start, body.count - start) == 0
    }
    guard isIntact else { throw BenchFailure("the body of a message is another") }
    guard isStamped else { return }
    let began = try Self.number(in: body, at: 0)
    guard began <= came else { throw BenchFailure("a message came before it was sent") }
    if window.contains(came) {
      delivered.record(1, from: began, to: came, since: window.lowerBound)
    }
    let number = try Self.number(in: body, at: 16)
    try order?.check(number & (1 << 40 - 1), of: Int(number >> 40))
  }

  /// The sum of numbers made of identifiers, which differ where those do.
  private static func sum(_ identifiers: [Range<Int>], _ answer: UnsafeRawBufferPointer) -> UInt64 {
    var sum: UInt64 = 0
    for range in identifiers {
      // FNV-1a.
      var number: UInt64 = 0xcbf2_9ce4_8422_2325
      for byte in answer[range] { number = (number ^ UInt64(byte)) &* 0x100_0000_01b3 }
      sum &+= number
    }
    return sum
  }
}
