// SPDX-License-Identifier: Apache-2.0
internal import Crypto

/// A sealed message in its parts.
///
/// **Layout**: format 1, length of the name 1, name, version of the key 4 (little-endian),
/// fingerprint of the master key 8; the data key sealed with it: nonce 12, bytes 32, tag 16; then
/// the content sealed with that: nonce 12, bytes, tag 16. Each seal vouches for everything before
/// its bytes.
struct Envelope {
  static let format: UInt8 = 1
  static let longestName = 128
  static let fingerprintSize = 8
  private static let (nonceSize, keySize, tagSize) = (12, 32, 16)

  var name: String
  var version: UInt32
  /// Up to the wrapped data key's end.
  var head: ArraySlice<UInt8>
  var fingerprint: ArraySlice<UInt8>
  private var wrapped: ArraySlice<UInt8>
  /// The content's nonce, bytes and tag.
  private var content: ArraySlice<UInt8>

  static func isName(_ name: String) -> Bool {
    (1...longestName).contains(name.utf8.count)
      && name.utf8.allSatisfy { (0x21...0x7e).contains($0) && $0 != UInt8(ascii: "#") }
  }

  /// Nil when the bytes cannot be an envelope.
  init?(_ bytes: [UInt8]) {
    guard bytes.count >= 2, bytes[0] == Self.format else { return nil }
    let nameEnd = 2 + Int(bytes[1])
    let wrapStart = nameEnd + 4 + Self.fingerprintSize
    let headEnd = wrapStart + Self.nonceSize + Self.keySize + Self.tagSize
    guard bytes.count >= headEnd + Self.nonceSize + Self.tagSize,
      let name = String(validating: bytes[2..<nameEnd], as: UTF8.self), Self.isName(name)
    else { return nil }
    self.name = name
    version = bytes[nameEnd..<nameEnd + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    fingerprint = bytes[nameEnd + 4..<wrapStart]
    wrapped = bytes[wrapStart..<headEnd]
    head = bytes[..<headEnd]
    content = bytes[headEnd...]
  }

  /// The beginning of envelopes whose content is sealed with `key`.
  static func wrap(
    _ key: SymmetricKey, _ name: String, _ version: UInt32, _ master: KeyRing.MasterKey
  ) throws -> [UInt8] {
    var head = [format, UInt8(truncatingIfNeeded: name.utf8.count)] + Array(name.utf8)
    head += (0..<4).map { UInt8(truncatingIfNeeded: version >> (8 * $0)) }
    head += master.fingerprint
    let bytes = key.withUnsafeBytes { Array($0) }
    let box = try AES.GCM.seal(bytes, using: master.key, authenticating: head)
    return head + Array(box.nonce) + Array(box.ciphertext) + Array(box.tag)
  }

  func unwrap(_ master: KeyRing.MasterKey) throws -> SymmetricKey {
    let before = head[..<wrapped.startIndex]
    return SymmetricKey(data: try Self.open(wrapped, master.key, before))
  }

  func open(_ key: SymmetricKey) throws -> [UInt8] {
    try Self.open(content, key, head + content.prefix(Self.nonceSize))
  }

  private static func open(
    _ sealed: ArraySlice<UInt8>, _ key: SymmetricKey, _ before: ArraySlice<UInt8>
  ) throws -> [UInt8] {
    let box = try AES.GCM.SealedBox(
      nonce: AES.GCM.Nonce(data: sealed.prefix(nonceSize)),
      ciphertext: sealed.dropFirst(nonceSize).dropLast(tagSize), tag: sealed.suffix(tagSize))
    return Array(try AES.GCM.open(box, using: key, authenticating: before))
  }
}
