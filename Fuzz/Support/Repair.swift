// SPDX-License-Identifier: Apache-2.0
internal import PenstockLog
internal import PenstockSystem

/// Makes checksums right again after bytes were changed.
package enum Repair {
  /// Of a segment header, and of each frame and record that can still be walked to. With `chaining`
  /// each frame also continues the one before it again.
  package static func segment(_ bytes: inout [UInt8], chaining: Bool) {
    guard bytes.count >= LogFormat.segmentHeaderSize else { return }
    seal(&bytes, 0..<LogFormat.segmentHeaderSize - 4, into: LogFormat.segmentHeaderSize - 4)
    var chain = bytes.word(LogFormat.segmentHeaderSize - 4)
    var offset = LogFormat.segmentHeaderSize
    while offset + LogFormat.frameHeaderSize <= bytes.count, bytes.word(offset) != 0 {
      if chaining { bytes.setWord(chain, at: offset + 36) }
      frame(&bytes, at: offset)
      chain = bytes.word(offset + 60)
      let extent = Int(bytes.word(offset + 32))
      guard extent > 0 else { return }
      offset += extent
    }
  }

  /// Of one frame with its records.
  package static func frame(_ bytes: inout [UInt8], at offset: Int) {
    let start = offset + LogFormat.frameHeaderSize
    let end = min(bytes.count, start + Int(bytes.word(offset + 28)))
    if bytes[offset + 5] == 1 {
      var at = start
      while at + LogFormat.recordHeaderSize <= end {
        let length = Int(bytes.word(at + 4))
        guard at + LogFormat.recordHeaderSize + length <= end else { break }
        seal(&bytes, at + 4..<at + LogFormat.recordHeaderSize + length, into: at)
        at += LogFormat.recordSize(payload: length)
      }
    }
    seal(&bytes, start..<end, into: offset + 56)
    seal(&bytes, offset..<offset + 60, into: offset + 60)
  }

  /// Writes the checksum of a range, if there is a place for it.
  package static func seal(_ bytes: inout [UInt8], _ range: Range<Int>, into place: Int) {
    guard range.upperBound <= bytes.count, place + 4 <= bytes.count else { return }
    let checksum = bytes.withRaw { CRC32C.of($0.extracting(range)) }
    bytes.setWord(checksum, at: place)
  }

  /// Where the frames begin, as far as their extents lead.
  package static func frames(of bytes: [UInt8]) -> [Int] {
    var places: [Int] = []
    var offset = LogFormat.segmentHeaderSize
    while offset + LogFormat.frameHeaderSize <= bytes.count, bytes.word(offset) != 0 {
      places.append(offset)
      let extent = Int(bytes.word(offset + 32))
      guard extent > 0 else { break }
      offset += extent
    }
    return places
  }
}

extension [UInt8] {
  package func word(_ offset: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 | UInt32(self[offset + $1]) << UInt32(8 * $1) }
  }

  package mutating func setWord(_ value: UInt32, at offset: Int) {
    for place in 0..<4 {
      self[offset + place] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(place)))
    }
  }
}
