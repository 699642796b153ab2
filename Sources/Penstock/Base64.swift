// SPDX-License-Identifier: Apache-2.0

/// Base64 of RFC 4648, section 4: standard alphabet, padded, nothing else between.
package enum Base64 {
  private static let alphabet: [UInt8] = Array(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  /// Value of each byte; 255 for those outside the alphabet.
  private static let values: [UInt8] = {
    var table = [UInt8](repeating: 255, count: 256)
    for (value, byte) in alphabet.enumerated() { table[Int(byte)] = UInt8(value) }
    return table
  }()

  package static func encode(_ bytes: [UInt8]) -> String {
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count + 2) / 3 * 4)
    var position = 0
    while position < bytes.count {
      let count = min(3, bytes.count - position)
      var group = UInt32(bytes[position]) << 16
      if count > 1 { group |= UInt32(bytes[position + 1]) << 8 }
      if count > 2 { group |= UInt32(bytes[position + 2]) }
      text.append(alphabet[Int(group >> 18 & 63)])
      text.append(alphabet[Int(group >> 12 & 63)])
      text.append(count > 1 ? alphabet[Int(group >> 6 & 63)] : UInt8(ascii: "="))
      text.append(count > 2 ? alphabet[Int(group & 63)] : UInt8(ascii: "="))
      position += 3
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// Nil for anything that `encode` would not have written, bits after the end set included.
  package static func decode(_ text: [UInt8]) -> [UInt8]? {
    guard text.count % 4 == 0 else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count / 4 * 3)
    let padding = text.suffix(2).reversed().prefix { $0 == UInt8(ascii: "=") }.count
    var (group, bits) = (UInt32(0), 0 as UInt32)
    for byte in text.dropLast(padding) {
      let value = values[Int(byte)]
      guard value != 255 else { return nil }
      (group, bits) = (group << 6 | UInt32(value), bits + 6)
      guard bits >= 8 else { continue }
      bits -= 8
      bytes.append(UInt8(truncatingIfNeeded: group >> bits))
    }
    return group & (1 << bits - 1) == 0 ? bytes : nil
  }
}
