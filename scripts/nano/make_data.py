"""Write held-out clips and questions about them."""

from miniature.make_data import main

if __name__ == "__main__":
    main()
