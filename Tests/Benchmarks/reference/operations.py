"""How many operations the autoencoders take, with 3×3 convolutions as direct sums."""


def middle_operations(tokens):
    """Of the autoencoder's middle block with 384 channels: four 3×3 convolutions, attention, its four projections."""
    return 18 * tokens * 4 * 384 * 384 + 4 * tokens * tokens * 384 + 8 * tokens * 384 * 384


def decoder_operations(size):
    first, second, third, last = (size * size // part for part in (64, 16, 4, 1))
    convolutions = (first * (16 * 384 + 6 * 384 * 384) + second * (384 * 192 + 192 * 384 + 5 * 384 * 384)
                    + third * (384 * 192 + 6 * 192 * 192) + last * (192 * 96 + 6 * 96 * 96 + 96 * 3))
    return 18 * convolutions + 2 * second * 192 * 384 + middle_operations(first)


def encoder_operations(size):
    first, second, third, last = (size * size // part for part in (1, 4, 16, 64))
    convolutions = (first * (3 * 96 + 4 * 96 * 96) + second * (96 * 96 + 96 * 192 + 3 * 192 * 192)
                    + third * (192 * 192 + 192 * 384 + 3 * 384 * 384) + last * (384 * 384 + 4 * 384 * 384 + 384 * 32))
    return 18 * convolutions + 2 * (second * 96 * 192 + third * 192 * 384) + middle_operations(last)


def decoder_operations_21(size):
    widths, side, channels = (1152, 1152, 576, 288, 144), size // 16, 1152
    convolutions = side * side * (64 * 1152 + 4 * 1152 * 1152) + size * size * 144 * 4
    products = side * side * (2 * 64 * 64 + 8 * 1152 * 1152) + 4 * side**4 * 1152
    for number, width in enumerate(widths):
        if width != channels:
            products += 2 * side * side * channels * width
        convolutions += side * side * (channels * width + 5 * width * width)
        channels = width
        if number < len(widths) - 1:
            side *= 2
            convolutions += side * side * width * width
    return 18 * convolutions + products


def encoder_operations_21(size):
    widths, side, channels = (96, 192, 384, 768, 768), size, 96
    convolutions, products = size * size * 4 * 96, 0
    for number, width in enumerate(widths):
        if width != channels:
            products += 2 * side * side * channels * width
        convolutions += side * side * (channels * width + 3 * width * width)
        channels = width
        if number < len(widths) - 1:
            side //= 2
            convolutions += side * side * width * width
    convolutions += side * side * (4 * 768 * 768 + 768 * 128)
    return 18 * convolutions + products + side * side * (2 * 128 * 128 + 8 * 768 * 768) + 4 * side**4 * 768
