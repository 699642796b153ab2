// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// One message attribute as it came, its JSON types checked and nothing else.
struct AttributeInput: Sendable {
  var name: String
  /// False for a null or an empty structure.
  var hasMembers: Bool
  var type: [UInt8]?
  var string: [UInt8]?
  var binary: [UInt8]?
  /// One of the list members, which the API defines and no service supports.
  var hasList: Bool

  init(name: String, _ node: JSONNode) throws(SQSError) {
    self.name = name
    guard node.kind != .null else {
      (hasMembers, hasList) = (false, false)
      return
    }
    let fields = try Fields(node)
    type = try fields.bytes("DataType")
    string = try fields.bytes("StringValue")
    binary = try fields.blob("BinaryValue")
    let strings = try fields.list("StringListValues") ?? []
    let binaries = try fields.list("BinaryListValues") ?? []
    hasList = !strings.isEmpty || !binaries.isEmpty
    hasMembers = type != nil || string != nil || binary != nil || hasList
  }

  /// What it counts of the message size.
  var size: Int {
    name.utf8.count + (type?.count ?? 0) + (string?.count ?? 0) + (binary?.count ?? 0)
  }

  static func all(
    _ name: String, of fields: Fields
  ) throws(SQSError) -> [AttributeInput] {
    guard let entries = try fields.map(name) else { return [] }
    var result: [AttributeInput] = []
    result.reserveCapacity(entries.count)
    for (key, value) in entries { result.append(try AttributeInput(name: key, value)) }
    return result
  }
}

/// The rules for message attributes.
package enum AttributeRules {
  /// Checks the attributes of one message, in the order given.
  static func check(
    _ inputs: [AttributeInput], most: Int
  ) throws(SQSError) -> [MessageAttribute] {
    guard inputs.count <= most else {
      throw .invalid(
        "Number of message attributes [\(inputs.count)] exceeds the allowed maximum [\(most)].")
    }
    var result: [MessageAttribute] = []
    result.reserveCapacity(inputs.count)
    for input in inputs {
      try checkName(input.name)
      result.append(try checkValue(input))
    }
    return result
  }

  static func checkName(_ name: String) throws(SQSError) {
    guard name.utf8.count <= 256 else {
      throw .invalid("Message (user) attribute names must be shorter than 256 Bytes")
    }
    guard !name.isEmpty, name.unicodeScalars.allSatisfy(isNameScalar) else {
      throw .invalid(
        "Message (user) attributes name can only contain upper and lower score characters, "
          + "digits, periods, hyphens and underscores. ")
    }
    let lower = name.lowercased()
    guard !lower.hasPrefix("aws."), !lower.hasPrefix("amazon."), !name.hasPrefix("."),
      !name.hasSuffix(".")
    else {
      throw .invalid(
        "You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. These strings "
          + "are reserved for internal use. Additionally, they cannot start or end with '.'.")
    }
    let bytes = Array(name.utf8)
    guard !zip(bytes, bytes.dropFirst()).contains(where: { $0 == 0x2e && $1 == 0x2e }) else {
      throw .invalid("Message (user) attribute name must not have successive '.' characters.")
    }
  }

  /// The real service takes accented Latin letters too.
  private static func isNameScalar(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "a"..."z", "A"..."Z", "0"..."9", "_", "-", ".", "\u{c0}"..."\u{17f}": true
    default: false
    }
  }

  /// Checks type and value of an attribute whose name is good.
  private static func checkValue(_ input: AttributeInput) throws(SQSError) -> MessageAttribute {
    let name = input.name
    guard input.hasMembers else {
      throw .invalid(
        "The message (user) attribute '\(name)' must contain a non-empty message attribute value."
      )
    }
    guard let type = input.type, !type.isEmpty else {
      throw .invalid(
        "The message (user) attribute '\(name)' must contain a non-empty message attribute type.")
    }
    guard type.count < 256 else {
      throw .invalid("Message (user) attribute types must be shorter than 256 Bytes")
    }
    let typeName = String(decoding: type, as: UTF8.self)
    let base = typeName.prefix { $0 != "." }
    guard Alphabet.isWireText(type), ["String", "Number", "Binary"].contains(base) else {
      throw .invalid(
        "The type of message (user) attribute '\(name)' is invalid. You must use only the "
          + "following supported type prefixes: Binary, Number, String.")
    }
    guard !input.hasList else {
      throw SQSError(
        .unsupportedOperation,
        "Message attribute list values in SendMessage operation are not supported.")
    }
    let value = try value(input, type: typeName, isBinary: base == "Binary")
    if base == "Number", case .string(let text) = value, !isNumber(text) {
      throw .invalid("Can't cast the value of message (user) attribute '\(name)' to a number.")
    }
    return MessageAttribute(name: name, type: typeName, value: value)
  }

  private static func value(
    _ input: AttributeInput, type: String, isBinary: Bool
  ) throws(SQSError) -> MessageAttribute.Value {
    let name = input.name
    let string = input.string ?? []
    let binary = input.binary ?? []
    guard string.isEmpty || binary.isEmpty else {
      throw .invalid("Message (user) attribute '\(name)' must have a single value.")
    }
    if isBinary ? !string.isEmpty : !binary.isEmpty {
      throw .invalid(
        "The message (user) attribute '\(name)' with type '\(type)' must use field "
          + "'\(isBinary ? "Binary" : "String")'.")
    }
    guard !string.isEmpty || !binary.isEmpty else {
      throw .invalid(
        "Message (user) attribute '\(name)' must contain a non-empty value of type '\(type)'.")
    }
    if isBinary { return .binary(binary) }
    guard Alphabet.isWireText(string) else {
      throw .invalid(
        "Message (user) attribute '\(name)' contains invalid characters. \(Self.characterRule)")
    }
    return .string(String(decoding: string, as: UTF8.self))
  }

  static let characterRule =
    "Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | "
    + "#x10000 to #x10FFFF"

  /// Decimal, with or without fraction and exponent, of at most 38 significant digits and a
  /// magnitude of 10^-128 to 10^126.
  package static func isNumber(_ text: String) -> Bool {
    var rest = text.utf8[...]
    func takeSign() -> Bool {
      guard let first = rest.first, first == UInt8(ascii: "-") || first == UInt8(ascii: "+")
      else { return false }
      rest = rest.dropFirst()
      return first == UInt8(ascii: "-")
    }
    func takeDigits() -> [UInt8] {
      let digits = Array(rest.prefix { $0 &- UInt8(ascii: "0") < 10 })
      rest = rest.dropFirst(digits.count)
      return digits
    }
    _ = takeSign()
    let whole = takeDigits()
    var fraction: [UInt8] = []
    if rest.first == UInt8(ascii: ".") {
      rest = rest.dropFirst()
      fraction = takeDigits()
    }
    guard !whole.isEmpty || !fraction.isEmpty else { return false }
    var exponent = 0
    if rest.first == UInt8(ascii: "e") || rest.first == UInt8(ascii: "E") {
      rest = rest.dropFirst()
      let isNegative = takeSign()
      let digits = takeDigits()
      guard !digits.isEmpty else { return false }
      // Longer ones are out of range whatever the digits before them, but for zero.
      let value = Int(String(decoding: digits.prefix(8), as: UTF8.self)) ?? 0
      exponent = isNegative ? -value : value
    }
    guard rest.isEmpty else { return false }
    return isInRange(whole: whole, fraction: fraction, exponent: exponent)
  }

  private static func isInRange(whole: [UInt8], fraction: [UInt8], exponent: Int) -> Bool {
    let digits = whole + fraction
    let zero = UInt8(ascii: "0")
    guard let first = digits.firstIndex(where: { $0 != zero }),
      let last = digits.lastIndex(where: { $0 != zero })
    else { return true }
    // Power of ten of the first digit that is not zero.
    let magnitude = whole.count - 1 - first + exponent
    return last - first < 38 && (-128...126).contains(magnitude)
  }
}

/// LSNs as 20 digits, so that the order of texts is the order of numbers.
enum SequenceNumber {
  static func text(_ lsn: UInt64) -> String {
    let digits = String(lsn)
    return "188" + String(repeating: "0", count: max(0, 17 - digits.count)) + digits
  }
}

/// The attributes that the API itself defines.
enum SystemAttribute: String, CaseIterable, Sendable {
  // In the order of `All`.
  case senderID = "SenderId"
  case sentTimestamp = "SentTimestamp"
  case approximateReceiveCount = "ApproximateReceiveCount"
  case approximateFirstReceiveTimestamp = "ApproximateFirstReceiveTimestamp"
  case messageGroupID = "MessageGroupId"
  case traceHeader = "AWSTraceHeader"
  case messageDeduplicationID = "MessageDeduplicationId"
  case sequenceNumber = "SequenceNumber"
  case deadLetterQueueSourceARN = "DeadLetterQueueSourceArn"

  func value(of message: ReceivedMessage, _ configuration: SQSConfiguration) -> String? {
    switch self {
    case .senderID: message.content.senderID
    case .sentTimestamp: String(message.sentAt.milliseconds)
    case .approximateReceiveCount: String(message.receiveCount)
    case .approximateFirstReceiveTimestamp: String(message.firstReceivedAt.milliseconds)
    case .messageGroupID: message.content.groupID
    case .traceHeader: message.content.traceHeader
    // Only messages of FIFO queues have the one, and so the other.
    case .messageDeduplicationID: message.content.deduplicationID
    case .sequenceNumber:
      message.content.deduplicationID.map { _ in SequenceNumber.text(message.sequenceNumber) }
    case .deadLetterQueueSourceARN:
      message.origin.map { configuration.arn(ofQueue: $0.queue) }
    }
  }

  static func requested(_ names: [String]) throws(SQSError) -> Set<SystemAttribute> {
    var result: Set<SystemAttribute> = []
    for name in names {
      if name == "All" {
        result = Set(allCases)
      } else if let attribute = SystemAttribute(rawValue: name) {
        result.insert(attribute)
      } else {
        throw QueueAttribute.unknown(name)
      }
    }
    return result
  }

  /// It does not count towards a message's size, so it needs a bound of its own.
  static let maximumTraceHeader = 4096

  /// The trace header among the system attributes of a send.
  static func traceHeader(_ inputs: [AttributeInput]) throws(SQSError) -> MessageAttribute? {
    for input in inputs where input.name != SystemAttribute.traceHeader.rawValue {
      throw .invalid(
        "Message system attribute name '\(SQSError.echo(input.name))' is invalid.")
    }
    guard let input = inputs.first else { return nil }
    guard let type = input.type, type.elementsEqual("String".utf8), input.binary == nil,
      !input.hasList
    else {
      throw .invalid(
        "The type of message (system) attribute '\(input.name)' is invalid. You must use only "
          + "the following supported type prefixes: String.")
    }
    guard let string = input.string, !string.isEmpty else {
      throw .invalid(
        "Message (system) attribute '\(input.name)' must contain a non-empty value of type "
          + "'String'.")
    }
    guard string.count <= maximumTraceHeader else {
      throw .invalid(
        "Message (system) attribute '\(input.name)' must not be longer than "
          + "\(maximumTraceHeader) bytes.")
    }
    guard Alphabet.isWireText(string) else {
      throw .invalid(
        "Message (system) attribute '\(input.name)' contains invalid characters. "
          + AttributeRules.characterRule)
    }
    return MessageAttribute(
      name: input.name, type: "String", value: .string(String(decoding: string, as: UTF8.self)))
  }
}

/// Which message attributes a receive asks for.
package struct AttributeFilter: Sendable {
  private var isAll = false
  private var names: Set<String> = []
  private var prefixes: [String] = []

  package init(_ patterns: [String]) {
    for pattern in patterns {
      if pattern == "All" || pattern == ".*" || pattern == "*" {
        isAll = true
      } else if pattern.hasSuffix(".*") {
        prefixes.append(String(pattern.dropLast(2)))
      } else {
        names.insert(pattern)
      }
    }
  }

  package func callAsFunction(_ name: String) -> Bool {
    isAll || names.contains(name) || prefixes.contains { name.utf8.starts(with: $0.utf8) }
  }
}
