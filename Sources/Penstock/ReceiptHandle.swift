// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore

/// Lease handles as text: base64 of 35 bytes, authenticated with the store's key, so that nothing
/// that was not given out is believed.
///
/// **Layout**: version 1/1/1 (three bytes), queue 4, slot 4, message 8, token 8, tag 8;
/// little-endian.
extension Engine {
  static let handleSize = 35
  private static let prefix: [UInt8] = [1, 1, 1]

  func text(of handle: LeaseHandle) -> String {
    var bytes = Self.prefix
    bytes.reserveCapacity(Self.handleSize + 1)
    Self.put(UInt64(handle.queue.value), 4, &bytes)
    Self.put(UInt64(handle.slot), 4, &bytes)
    Self.put(handle.message, 8, &bytes)
    Self.put(handle.token, 8, &bytes)
    Self.put(tag(bytes), 8, &bytes)
    return Base64.encode(bytes)
  }

  func handle(from text: String) -> LeaseHandle? {
    guard text.utf8.count <= 2 * Self.handleSize, let bytes = Base64.decode(Array(text.utf8)),
      bytes.count == Self.handleSize,
      Array(bytes[..<3]) == Self.prefix,
      Self.get(bytes, 27, 8) == tag(bytes[..<27])
    else { return nil }
    return LeaseHandle(
      queue: QueueID(UInt32(Self.get(bytes, 3, 4))), slot: UInt32(Self.get(bytes, 7, 4)),
      message: Self.get(bytes, 11, 8), token: Self.get(bytes, 19, 8))
  }

  private func tag(_ bytes: some Sequence<UInt8>) -> UInt64 {
    var hash = SipHash(handleKey)
    hash.absorb(bytes)
    return hash.finish()
  }

  private static func put(_ value: UInt64, _ count: Int, _ bytes: inout [UInt8]) {
    for place in 0..<count { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * UInt64(place)))) }
  }

  private static func get(_ bytes: [UInt8], _ start: Int, _ count: Int) -> UInt64 {
    var value: UInt64 = 0
    for place in 0..<count { value |= UInt64(bytes[start + place]) << (8 * UInt64(place)) }
    return value
  }
}

/// SipHash-2-4, a keyed hash for short inputs (Aumasson and Bernstein, 2012).
package struct SipHash {
  private var a, b, c, d: UInt64
  private var (word, count) = (UInt64(0), 0)

  package init(_ key: (UInt64, UInt64)) {
    a = key.0 ^ 0x736f_6d65_7073_6575
    b = key.1 ^ 0x646f_7261_6e64_6f6d
    c = key.0 ^ 0x6c79_6765_6e65_7261
    d = key.1 ^ 0x7465_6462_7974_6573
  }

  package mutating func absorb(_ bytes: some Sequence<UInt8>) {
    for byte in bytes {
      word |= UInt64(byte) << (8 * UInt64(count & 7))
      count += 1
      if count & 7 == 0 { absorbWord() }
    }
  }

  package mutating func finish() -> UInt64 {
    word |= UInt64(count & 0xff) << 56
    absorbWord()
    c ^= 0xff
    for _ in 0..<4 { round() }
    return a ^ b ^ c ^ d
  }

  private mutating func absorbWord() {
    d ^= word
    round()
    round()
    a ^= word
    word = 0
  }

  private mutating func round() {
    a &+= b
    b = Self.rotated(b, 13) ^ a
    a = Self.rotated(a, 32)
    c &+= d
    d = Self.rotated(d, 16) ^ c
    a &+= d
    d = Self.rotated(d, 21) ^ a
    c &+= b
    b = Self.rotated(b, 17) ^ c
    c = Self.rotated(c, 32)
  }

  private static func rotated(_ value: UInt64, _ bits: UInt64) -> UInt64 {
    value << bits | value >> (64 - bits)
  }
}
