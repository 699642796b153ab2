// SPDX-License-Identifier: Apache-2.0
import PenstockTesting

/// A body that says what it is: run, producer, number, length and checksum, then filler.
///
/// ```
/// ct1:SEED:PRODUCER:NUMBER:LENGTH:CHECKSUM:filler
/// ```
///
/// Numbers are hexadecimal; the length is the filler's in UTF-8; the checksum is FNV-1a over
/// everything but itself. The filler depends on seed and number alone and holds characters that
/// are easily damaged on the way.
package struct MessageBody: Equatable, Sendable {
  package var seed: UInt64
  package var producer: Int
  package var number: Int
  package var filler: String

  package init(seed: UInt64, producer: Int, number: Int, filler: String) {
    self.seed = seed
    self.producer = producer
    self.number = number
    self.filler = filler
  }

  /// A body with about `size` bytes of filler.
  package init(seed: UInt64, producer: Int, number: Int, size: Int) {
    let random = StableRandom(seed: seed ^ UInt64(number) &* 0x9e37_79b9_7f4a_7c15)
    var filler = ""
    filler.reserveCapacity(size + 8)
    var bytes = 0
    while bytes < size {
      let piece = Self.pieces[random.below(Self.pieces.count)]
      filler += piece
      bytes += piece.utf8.count
    }
    self.init(seed: seed, producer: producer, number: number, filler: filler)
  }

  private static let pieces = [
    "the quick brown fox", "0123456789", "\"quoted\\", "<&'>", "\r\n\t", "Grüße", "漢字", "🐝",
    "{\"a\":[1,2]}", "                ", "%00%", "x",
  ]

  package var text: String {
    let head = Self.head(seed, producer, number, filler.utf8.count)
    return "\(head):\(Self.hex(Self.checksum(head, filler))):\(filler)"
  }

  /// Why a body is none of ours.
  package enum Failure: Error, Equatable { case notOurs, damaged, otherRun(UInt64) }

  /// Reads a body, and checks all of it.
  package init(text: String, seed: UInt64) throws(Failure) {
    let parts = text.utf8.split(
      separator: UInt8(ascii: ":"), maxSplits: 6, omittingEmptySubsequences: false)
    guard parts.count == 7, parts[0].elementsEqual("ct1".utf8) else { throw .notOurs }
    var numbers: [UInt64] = []
    for part in parts[1...5] {
      guard let number = UInt64(String(decoding: part, as: UTF8.self), radix: 16) else {
        throw .damaged
      }
      numbers.append(number)
    }
    let filler = String(decoding: parts[6], as: UTF8.self)
    guard let producer = Int(exactly: numbers[1]), let number = Int(exactly: numbers[2]),
      numbers[3] == UInt64(filler.utf8.count),
      numbers[4]
        == Self.checksum(Self.head(numbers[0], producer, number, filler.utf8.count), filler)
    else { throw .damaged }
    guard numbers[0] == seed else { throw .otherRun(numbers[0]) }
    self.init(seed: seed, producer: producer, number: number, filler: filler)
  }

  private static func head(_ seed: UInt64, _ producer: Int, _ number: Int, _ length: Int) -> String
  {
    "ct1:\(hex(seed)):\(hex(UInt64(producer))):\(hex(UInt64(number))):\(hex(UInt64(length)))"
  }

  private static func checksum(_ head: String, _ filler: String) -> UInt64 {
    FNV.hash(Array(head.utf8) + Array(filler.utf8))
  }

  private static func hex(_ value: UInt64) -> String { String(value, radix: 16) }
}
