// SPDX-License-Identifier: Apache-2.0

/// The bytes of one input, taken from the front. Behind the end there are zeros, so every input is
/// a whole one and a cut one means much the same.
package struct Input {
  private let bytes: [UInt8]
  private var position = 0

  package init(_ bytes: [UInt8]) { self.bytes = bytes }

  package init(_ data: UnsafePointer<UInt8>?, _ size: Int) {
    bytes = Array(UnsafeBufferPointer(start: data, count: data == nil ? 0 : size))
  }

  package var isEmpty: Bool { position >= bytes.count }

  package mutating func byte() -> UInt8 {
    guard position < bytes.count else { return 0 }
    position += 1
    return bytes[position - 1]
  }

  /// A number in `0..<bound` from one byte; `bound` is from 1 to 256.
  package mutating func below(_ bound: Int) -> Int { Int(byte()) % bound }

  /// Little-endian.
  package mutating func number(bytes count: Int) -> UInt64 {
    (0..<count).reduce(0) { $0 | UInt64(byte()) << UInt64(8 * $1) }
  }

  /// Up to `count` bytes; fewer at the end.
  package mutating func take(_ count: Int) -> [UInt8] {
    let end = min(bytes.count, position + max(0, count))
    defer { position = end }
    return Array(bytes[min(position, end)..<end])
  }

  package mutating func rest() -> [UInt8] { take(bytes.count) }

  /// A number that is mostly small, and at times one of those that overflow something.
  package mutating func awkward() -> Int64 {
    let choice = byte()
    switch choice {
    case 0..<128: return Int64(choice)
    case 128..<192: return Int64(number(bytes: 2))
    case 192..<224: return Int64(bitPattern: number(bytes: 8))
    case 224: return .max
    case 225: return .min
    case 226: return -1
    case 227: return .max - 1
    case 228: return .min + 1
    case 229: return Int64(UInt32.max)
    case 230: return Int64(UInt32.max) + 1
    case 231: return Int64(Int32.max)
    case 232: return Int64(UInt32.max) * 1000
    case 233: return .max / 1000
    case 234: return .max / 1000 + 1
    default: return Int64(choice) * 1000
    }
  }
}
